//! VRRP's rules for a whole host beside a keepalived: what is heard, what is said, in which order.
//!
//! In: a node in virtual time whose database never answers, and datagrams of a keepalived. Out: the
//! laws of RFC 9568 section 6.4 and of facts/vrrp.md 1.4, 3.3 and 4.1 (holo's conformance cases,
//! where both agree). Must not: need a pair of tandems (`sim` has those).

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use tandem::config::{Config, EXAMPLE};
use tandem::console::message::{Request, Response};
use tandem::net::arp::{Arp, Mac, Operation};
use tandem::net::{nd, netlink};
use tandem::node::{Input, Node, Output, Persistent};
use tandem::peer::{DatabaseReport, Handover, Peer, Report};
use tandem::time::Instant;
use tandem::vrrp::packet::{Addresses, Advertisement, GROUP, Version, password_data};
use tandem::wire::{HostId, LinkId, Orders, Role};

const PEER: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 96, 153, 114), Ipv4Addr::new(192, 168, 3, 101)];
const VIPS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 96, 153, 239), Ipv4Addr::new(192, 168, 3, 150)];
const VRIDS: [u8; 2] = [50, 51];
const PEER_MAC: Mac = Mac([2, 0, 0, 0, 2, 1]);
const SECOND: Duration = Duration::from_secs(1);
/// The database is given up on after 10 s, the network listened to for 35 s at most.
const READY: Duration = Duration::from_secs(60);

/// What a host did, in the words of these laws.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Did {
    Advertise(u8),
    Add(IpAddr),
    Remove(IpAddr),
    Announce(IpAddr),
    Note(String),
}

struct Bench {
    node: Node,
    now: Instant,
    did: Vec<Did>,
}

impl Bench {
    /// Server1, priority 101, both links up; nobody else is there.
    fn new(changes: &[(&str, &str)]) -> Self {
        let text = EXAMPLE.replacen("[peer] ", "[peer]\nkind = \"keepalived\" ", 1);
        let text = changes.iter().fold(text, |text, (from, to)| {
            assert!(text.contains(from), "{from:?} is in the example");
            text.replacen(from, to, 1)
        });
        Self::with(&text, Persistent::default())
    }

    fn with(text: &str, persistent: Persistent) -> Self {
        let config = Config::parse(text).expect("the configuration is valid");
        let node = Node::new(config, HostId::First, 7, persistent);
        let mut bench = Self { node, now: Instant::from_nanos(1_000_000_000), did: Vec::new() };
        for (index, name) in [(2, "eth0"), (3, "eth1")] {
            bench.give(Input::Netlink { datagram: link_message(index, name, true) });
        }
        bench
    }

    /// It has found nobody for so long that it serves.
    fn master(changes: &[(&str, &str)]) -> Self {
        let mut bench = Self::new(changes);
        bench.wait(READY);
        assert!(bench.is_serving(), "{:?}", bench.did);
        bench.did.clear();
        bench
    }

    /// A keepalived of priority 100 serves, and is heard every second.
    fn backup(changes: &[(&str, &str)]) -> Self {
        let mut bench = Self::new(changes);
        for _ in 0..READY.as_secs() {
            bench.hear_on_both(100);
            bench.wait(SECOND);
        }
        assert!(!bench.is_serving() && !bench.advertised(), "{:?}", bench.did);
        bench.did.clear();
        bench
    }

    fn give(&mut self, input: Input) {
        self.node.handle(self.now, input);
        while let Some(output) = self.node.poll_output() {
            self.take(output);
        }
    }

    /// Lets time pass, deadline by deadline.
    fn wait(&mut self, span: Duration) {
        let until = self.now + span;
        while let Some(at) = self.node.deadline().filter(|at| *at <= until) {
            self.now = at.max(self.now);
            self.give(Input::Wake);
        }
        self.now = until;
    }

    fn hear(&mut self, link: LinkId, priority: u8) {
        let place = link.index();
        let source = PEER[place].into();
        let datagram = advertisement(place, priority).emit(source, GROUP.into(), 1);
        self.give(Input::Vrrp { link, datagram });
    }

    fn hear_on_both(&mut self, priority: u8) {
        LinkId::ALL.into_iter().for_each(|link| self.hear(link, priority));
    }

    fn hear_arp(&mut self, link: LinkId, arp: &Arp) {
        let frame = arp.emit().to_vec();
        self.give(Input::Frame { device: link.into(), frame });
    }

    fn take(&mut self, output: Output) {
        match output {
            // To the peer's host alone goes only what asks whether anybody listens there.
            Output::SendVrrp { datagram, .. } if !datagram.destination.is_multicast() => {
                assert_eq!(datagram.bytes.len(), 20, "nothing in it");
            }
            Output::SendVrrp { datagram, .. } => {
                self.did.push(Did::Advertise(priority_of(&datagram.bytes)));
            }
            Output::SendFrame { frame, .. } => {
                self.did.extend(announced(&frame).map(Did::Announce))
            }
            Output::Netlink { request } => {
                for event in netlink::parse(&request) {
                    if let netlink::Event::AddressAdded { address, .. } = event {
                        self.did.push(Did::Add(address.address));
                    } else if let netlink::Event::AddressRemoved { address, .. } = event {
                        self.did.push(Did::Remove(address.address));
                    }
                }
            }
            Output::Note(note) => self.did.push(Did::Note(note.to_string())),
            Output::Reply { response: Response::Refused(why), .. } => self.did.push(Did::Note(why)),
            Output::SendBeacon { .. }
            | Output::SendEcho { .. }
            | Output::Query { .. }
            | Output::Probe { .. }
            | Output::EndDatabase
            | Output::SaveErrant { .. }
            | Output::TakeBack { .. }
            | Output::CopyDatabase
            | Output::TakeUpdate { .. }
            | Output::Routes(_)
            | Output::Persist(_)
            | Output::Will(_)
            | Output::Reply { .. }
            | Output::Reload { .. }
            | Output::Exit => {}
        }
    }

    fn is_serving(&self) -> bool {
        let last = self.did.iter().rev().find(|did| matches!(did, Did::Add(_) | Did::Remove(_)));
        matches!(last, Some(Did::Add(_)))
    }

    fn advertised(&self) -> bool {
        self.did.iter().any(|did| matches!(did, Did::Advertise(_)))
    }

    fn place(&self, did: &Did) -> usize {
        self.did
            .iter()
            .position(|it| it == did)
            .unwrap_or_else(|| panic!("{did:?}: {:?}", self.did))
    }

    fn count(&self, did: &Did) -> usize {
        self.did.iter().filter(|it| *it == did).count()
    }
}

fn advertisement(place: usize, priority: u8) -> Advertisement {
    Advertisement {
        version: Version::V2,
        vrid: VRIDS[place],
        priority,
        interval: SECOND,
        password: Some(password_data("3489")),
        addresses: Addresses::from_slice(&[VIPS[place].into()]).expect("one fits"),
    }
}

/// Behind the IP header, version and VRID.
fn priority_of(datagram: &[u8]) -> u8 {
    let header = if datagram[0] >> 4 == 4 { 20 } else { 40 };
    datagram[header + 2]
}

/// The virtual address that a frame announces; a probe or a question announces none.
fn announced(frame: &[u8]) -> Option<IpAddr> {
    if let Some(arp) = Arp::parse(frame) {
        return (arp.sender == arp.target).then_some(arp.sender.into());
    }
    let neighbour = nd::Neighbour::parse(frame)?;
    (neighbour.kind == nd::Kind::Advertisement).then_some(neighbour.target.into())
}

/// RTM_NEWLINK: struct nlmsghdr, struct ifinfomsg, IFLA_IFNAME, IFLA_ADDRESS.
fn link_message(index: u32, name: &str, has_carrier: bool) -> Vec<u8> {
    let mut body = vec![0, 0, 1, 0];
    body.extend(index.to_ne_bytes());
    body.extend((if has_carrier { 0x41_u32 } else { 1 }).to_ne_bytes());
    body.extend([0; 4]);
    for (kind, value) in [(3_u16, format!("{name}\0").into_bytes()), (1, vec![2, 0, 0, 0, 1, 1])] {
        body.extend(u16::try_from(value.len() + 4).expect("it is short").to_ne_bytes());
        body.extend(kind.to_ne_bytes());
        body.extend(value);
        body.resize(body.len().next_multiple_of(4), 0);
    }
    let mut message = u32::try_from(16 + body.len()).expect("it is short").to_ne_bytes().to_vec();
    message.extend(16_u16.to_ne_bytes());
    message.extend([0; 10]);
    message.extend(body);
    message
}

fn vip(place: usize) -> IpAddr {
    VIPS[place].into()
}

/// It says nothing that could be waited for.
#[test]
fn a_keepalived_is_not_asked_for_its_role() {
    let mut bench = Bench::backup(&[]);
    let request = Request::Switchover;
    bench.give(Input::Control { client: 1, request, glance: Box::default() });
    let refused = |did: &Did| matches!(did, Did::Note(why) if why.contains("runs keepalived"));
    assert!(bench.did.iter().any(refused), "{:?}", bench.did);
}

#[test]
fn a_takeover_advertises_then_binds_then_announces() {
    let mut bench = Bench::new(&[]);
    bench.wait(READY);
    for place in 0..2 {
        let (advertised, bound) =
            (bench.place(&Did::Advertise(254)), bench.place(&Did::Add(vip(place))));
        let announced = bench.place(&Did::Announce(vip(place)));
        assert!(advertised < bound && bound < announced, "{:?}", bench.did);
    }
}

#[test]
fn a_backup_takes_over_one_master_down_interval_after_the_last_advertisement() {
    let mut bench = Bench::backup(&[]);
    let heard_at = bench.now;
    bench.hear_on_both(100);
    // Priority 101: 3 s and 155/256 s.
    bench.wait(Duration::from_millis(3605));
    assert!(!bench.is_serving(), "too early");
    bench.wait(Duration::from_millis(2));
    assert!(bench.is_serving(), "{:?} after {:?}", bench.did, bench.now.since(heard_at));
}

#[test]
fn a_resignation_leaves_the_skew_time_on_whatever_link_it_is_heard() {
    for links in [&LinkId::ALL[..], &LinkId::ALL[..1], &LinkId::ALL[1..]] {
        let mut bench = Bench::backup(&[]);
        bench.hear_on_both(100);
        links.iter().for_each(|link| bench.hear(*link, 0));
        bench.wait(Duration::from_millis(600));
        assert!(!bench.is_serving(), "{links:?}: too early");
        bench.wait(Duration::from_millis(10));
        assert!(bench.is_serving(), "{links:?}: {:?}", bench.did);
    }
}

#[test]
fn a_resignation_on_one_link_alone_moves_nothing_while_the_other_one_is_served() {
    let mut bench = Bench::backup(&[]);
    bench.hear(LinkId::Outside, 0);
    for _ in 0..20 {
        bench.wait(Duration::from_millis(500));
        bench.hear(LinkId::Inside, 100);
    }
    assert!(!bench.is_serving(), "{:?}", bench.did);
}

#[test]
fn a_lower_priority_moves_no_master_and_is_answered_at_once() {
    for priority in [1, 100, 253] {
        let mut bench = Bench::master(&[]);
        bench.wait(Duration::from_millis(300));
        bench.did.clear();
        bench.hear(LinkId::Outside, priority);
        bench.wait(Duration::from_millis(1));
        assert!(bench.count(&Did::Advertise(254)) >= 2, "{priority}: {:?}", bench.did);
        assert!(bench.count(&Did::Announce(vip(0))) >= 2, "{priority}: {:?}", bench.did);
        assert_eq!(bench.count(&Did::Remove(vip(0))), 0, "{priority}");
    }
}

#[test]
fn an_owner_and_an_equal_priority_of_a_higher_address_are_obeyed() {
    // 255 outranks 254; at 254 the peer's address decides, which is the higher one here.
    for priority in [255, 254] {
        let mut bench = Bench::master(&[]);
        bench.hear(LinkId::Inside, priority);
        bench.wait(Duration::from_millis(1));
        for place in 0..2 {
            bench.place(&Did::Remove(vip(place)));
        }
        bench.did.clear();
        for _ in 0..10 {
            bench.hear_on_both(priority);
            bench.wait(SECOND);
        }
        assert!(!bench.advertised() && !bench.is_serving(), "{priority}: {:?}", bench.did);
    }
}

#[test]
fn an_equal_priority_of_a_lower_address_is_not_obeyed() {
    let exchanged =
        [("10.96.153.110/24", "10.96.153.200/24"), ("192.168.3.100/24", "192.168.3.200/24")];
    let mut bench = Bench::master(&exchanged);
    bench.hear(LinkId::Inside, 254);
    bench.wait(Duration::from_millis(1));
    assert_eq!(bench.count(&Did::Remove(vip(1))), 0, "{:?}", bench.did);
    assert!(bench.count(&Did::Announce(vip(1))) >= 2, "{:?}", bench.did);
}

#[test]
fn a_master_that_hears_a_resignation_advertises_at_once_and_stays() {
    let mut bench = Bench::master(&[]);
    bench.wait(Duration::from_millis(300));
    bench.did.clear();
    bench.hear(LinkId::Outside, 0);
    bench.wait(Duration::from_millis(1));
    assert!(bench.advertised() && bench.count(&Did::Remove(vip(0))) == 0, "{:?}", bench.did);
}

#[test]
fn a_foreign_claim_of_a_held_address_is_answered_once_a_second_at_most() {
    let mut bench = Bench::master(&[]);
    bench.wait(Duration::from_secs(6));
    bench.did.clear();
    let claim = Arp::announcement(PEER_MAC, VIPS[1]);
    for _ in 0..100 {
        bench.hear_arp(LinkId::Inside, &claim);
    }
    // A request and a reply form.
    assert_eq!(bench.count(&Did::Announce(vip(1))), 2, "{:?}", bench.did);
    bench.wait(SECOND);
    bench.hear_arp(LinkId::Inside, &claim);
    assert_eq!(bench.count(&Did::Announce(vip(1))), 4);
}

#[test]
fn nothing_is_taken_that_somebody_answers_for() {
    let mut bench = Bench::backup(&[]);
    let stranger = Arp {
        operation: Operation::Reply,
        sender_mac: Mac([2, 6, 6, 6, 6, 6]),
        sender: VIPS[0],
        target_mac: Mac([2, 0, 0, 0, 1, 1]),
        target: Ipv4Addr::UNSPECIFIED,
    };
    for _ in 0..300 {
        bench.hear_arp(LinkId::Outside, &stranger);
        bench.wait(Duration::from_millis(50));
    }
    assert!(!bench.is_serving());
    let is_named = |did: &Did| matches!(did, Did::Note(text) if text.contains("address-conflict"));
    assert!(bench.did.iter().any(is_named), "{:?}", bench.did);
    bench.wait(Duration::from_secs(3));
    assert!(bench.is_serving(), "the stranger is gone");
}

#[test]
fn ipv6_addresses_go_with_the_others() {
    let changes = [("\"192.168.3.150/24\"]", "\"192.168.3.150/24\", \"fe80::51/64\"]")];
    let mut bench = Bench::new(&changes);
    let link_local = "fe80::ff:fe00:101/64".parse().unwrap();
    let datagram = netlink::set_address(0, 3, link_local, None, None);
    bench.give(Input::Netlink { datagram });
    bench.wait(READY);
    let address: IpAddr = "fe80::51".parse().unwrap();
    assert!(bench.place(&Did::Add(address)) < bench.place(&Did::Announce(address)));
    // A second: one of each virtual router.
    bench.did.clear();
    bench.wait(SECOND);
    assert_eq!(bench.count(&Did::Advertise(254)), 3, "{:?}", bench.did);
}

#[test]
fn a_set_clock_and_a_late_loop_are_named() {
    let mut bench = Bench::master(&[]);
    bench.give(Input::ClockSet { seconds: -3600 });
    bench.now = bench.now + Duration::from_millis(900);
    bench.give(Input::Wake);
    bench.wait(Duration::from_secs(2));
    for name in ["clock-jumped: the clock was set by -3600 s", "loop-late: this daemon ran "] {
        let is_named = |did: &Did| matches!(did, Did::Note(text) if text.starts_with(name));
        assert!(bench.did.iter().any(is_named), "{name}: {:?}", bench.did);
    }
}

#[test]
fn preemption_takes_the_role_from_a_lower_priority_after_its_delay() {
    let preempt =
        [("interval = \"1s\"", "interval = \"1s\"\npreempt = true\npreempt_delay = \"8s\"")];
    let mut bench = Bench::new(&preempt);
    let mut taken_after = None;
    let start = bench.now;
    for _ in 0..60 {
        if taken_after.is_none() {
            bench.hear_on_both(100);
        }
        bench.wait(SECOND);
        if bench.is_serving() && taken_after.is_none() {
            taken_after = Some(bench.now.since(start));
        }
    }
    // 10 s until the database is given up on, 8 s of delay.
    let after = taken_after.expect("it takes the role");
    assert!((17..22).contains(&after.as_secs()), "after {after:?}");
    let mut bench = Bench::new(&preempt);
    for _ in 0..60 {
        bench.hear_on_both(200);
        bench.wait(SECOND);
    }
    assert!(!bench.is_serving(), "a higher priority is left alone");
}

/// The peer is silent and its host still answers for the addresses.
fn left_behind() -> Bench {
    let mut bench = Bench::backup(&[]);
    let answer = |sender| Arp {
        operation: Operation::Reply,
        sender_mac: PEER_MAC,
        sender,
        target_mac: Mac([2, 0, 0, 0, 1, 1]),
        target: Ipv4Addr::UNSPECIFIED,
    };
    for _ in 0..200 {
        for (place, link) in LinkId::ALL.into_iter().enumerate() {
            bench.hear_arp(link, &answer(PEER[place]));
            bench.hear_arp(link, &answer(VIPS[place]));
        }
        bench.wait(Duration::from_millis(50));
    }
    assert!(!bench.is_serving(), "nothing is taken from the living: {:?}", bench.did);
    bench
}

#[test]
fn a_silent_keepalived_is_overtaken_only_when_its_kernel_says_that_nobody_listens() {
    let mut bench = left_behind();
    // IPv4 header, ICMP 3/2, header of what was sent to the peer inside.
    let mut datagram = vec![0x45, 0xc0, 0, 48, 0, 0, 0, 0, 64, 1, 0, 0];
    datagram.extend(PEER[1].octets());
    datagram.extend([192, 168, 3, 100, 3, 2, 0, 0, 0, 0, 0, 0]);
    datagram.extend([0x45, 0xc0, 0, 20, 0, 0, 0, 0, 255, 112, 0, 0, 192, 168, 3, 100]);
    datagram.extend(PEER[1].octets());
    bench.give(Input::Icmp { link: LinkId::Inside, datagram });
    bench.wait(Duration::from_millis(10));
    assert!(bench.is_serving(), "{:?}", bench.did);
}

#[test]
fn a_keepalived_whose_frames_still_arrive_is_not_overtaken() {
    let mut bench = left_behind();
    let mut frame = vec![1, 0, 0x5e, 0, 0, 0x12, 2, 0, 0, 0, 2, 1, 8, 0];
    frame.extend(advertisement(1, 100).emit(PEER[1].into(), GROUP.into(), 1));
    bench.give(Input::Frame { device: LinkId::Inside.into(), frame });
    bench.wait(SECOND);
    assert!(!bench.is_serving(), "{:?}", bench.did);
}

/// What a tandem on the other host says that has no database either.
fn report() -> Report {
    Report {
        host: HostId::Second,
        boot_id: 9,
        sequence: 0,
        config_digest: Config::parse(EXAMPLE).expect("the example is valid").digest,
        role: Role::Joining,
        epoch: 0,
        was_source: false,
        hears: [true; 2],
        carrier: [true; 2],
        holds_vips: false,
        is_quiet: true,
        is_leaving: false,
        handover: Handover::None,
        wish: None,
        database: DatabaseReport::default(),
        link_local: [None; 2],
        orders: Orders::default(),
        is_ill: false,
        declined: None,
        php_drain: [tandem::wire::Hold::default(); 2],
        sections: [0; 8],
        build: tandem::peer::Build::default(),
        update: None,
        update_failed: None,
        backed: 0,
        keeps: 0,
    }
}

#[test]
fn a_tandem_silent_on_every_path_is_gone_when_its_lease_has_ended() {
    // A fast version 3 keeps VRRP's own timer, which nothing has set again here: four beacons.
    for (version, after) in [("1s", 2605), ("100ms", 100)] {
        let text = match version {
            "1s" => EXAMPLE.to_owned(),
            _ => EXAMPLE
                .replacen("version = 2", "version = 3", 1)
                .replacen("interval = \"1s\"", "interval = \"100ms\"", 1)
                .replacen("password = \"3489\"\n", "", 1)
                .replacen("[peer] ", "[peer]\ninterval = \"25ms\" ", 1),
        };
        let persistent = Persistent { epoch: 1, was_source: true, ..Persistent::default() };
        let mut bench = Bench::with(&text, persistent);
        let config = Config::parse(&text).expect("the configuration is valid");
        let interval = config.peer.interval;
        let mut peer = Peer::new(&config.peer, HostId::Second);
        let start = bench.now;
        while bench.now.since(start) < READY {
            let said = Report { config_digest: config.digest, ..report() };
            let datagram = peer.poll_beacon(bench.now, said).expect("one is due");
            for link in LinkId::ALL {
                bench.give(Input::Beacon { link, datagram: datagram.clone() });
            }
            bench.wait(interval);
        }
        assert!(!bench.is_serving(), "{version}: {:?}", bench.did);
        // The last beacon came one interval ago.
        bench.wait(Duration::from_millis(after) - interval - Duration::from_millis(2));
        assert!(!bench.is_serving(), "{version}: too early");
        bench.wait(Duration::from_millis(60));
        assert!(bench.is_serving(), "{version}: {:?}", bench.did);
    }
}
