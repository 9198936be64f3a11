//! Targets for the machines behind the decoders: virtual router, beacons, the whole node.
//!
//! In: any bytes, cut into a configuration and steps. Out: a panic where a law is broken.
//! Must not: hand a machine what the kernel cannot (time that goes back, an unknown interface).
//! Read first: `targets`.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::LazyLock;
use std::time::Duration;

use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use tandem::config::{self, EXAMPLE};
use tandem::net::netlink::{self, Event};
use tandem::node::{Input, Node, Output, Persistent};
use tandem::peer::{self, DatabaseReport, Handover, Kind, Peer, Refusal, Report};
use tandem::time::Instant;
use tandem::units::Secret;
use tandem::vrrp::Transport;
use tandem::vrrp::packet::{Addresses, Expected, Family, PROTOCOL, Received, Version};
use tandem::vrrp::router::{self, Datagrams, Heard, LISTEN_MAX, Router};
use tandem::wire::{DeviceId, Hold, HostId, LinkId, Orders, Role};

use super::{Cut, MEND, VRRP_CHECKSUM, mend, receiver};

const START: Instant = Instant::from_nanos(1_000_000_000);

// ---- virtual router ------------------------------------------------------------------------

/// Steps of a byte that says what, a byte of time, and a datagram where one is heard.
pub fn router(input: &[u8]) {
    let mut cut = Cut::new(input);
    let config = router_config(cut.byte());
    let mut router = Router::new(config.clone());
    let mut now = START;
    while !cut.is_empty() {
        let (step, delay) = (cut.byte(), cut.byte());
        now = now + Duration::from_millis(20 * u64::from(delay));
        let (down_at, deadline) = (router.down_at(), router.deadline());
        match step & 7 {
            0..=2 => hear(&mut router, &config, now, step, cut.piece()),
            3 => router.set_carrier(now, step & 8 == 0),
            4 => router.note_traffic(now),
            5 if step & 8 == 0 => router.serve(now),
            5 => router.stop(now),
            6 if step & 8 == 0 => router.listen_again(now),
            6 => router.advertise_at_once(now),
            _ if step & 8 == 0 => said(&config, &router.poll_advertisement(now)),
            _ => {
                said(&config, &router.resignation());
                assert_eq!((router.down_at(), router.deadline()), (down_at, deadline));
            }
        }
        let longest = LISTEN_MAX.max(router.master_down_interval());
        assert!(router.down_at().is_none_or(|at| at <= now + longest.max(4 * INTERVAL_MAX)));
        assert!(router.deadline().is_none_or(|at| at <= now + config.interval));
        assert!(router.down_at().is_none() || router.deadline().is_none(), "backup or master");
    }
}

/// What version 2 carries at most; version 3 carries less.
const INTERVAL_MAX: Duration = Duration::from_secs(255);

/// Only what comes from the peer and is accepted moves a timer.
fn hear(router: &mut Router, config: &router::Config, now: Instant, step: u8, datagram: &[u8]) {
    let mut datagram = datagram.to_vec();
    if step & MEND != 0 {
        mend(&mut datagram, PROTOCOL, VRRP_CHECKSUM);
    }
    let (down_at, deadline) = (router.down_at(), router.deadline());
    let heard = router.handle_datagram(now, &datagram);
    let parsed = Received::parse(&datagram, &expected_of(config));
    let after = (router.down_at(), router.deadline());
    match (heard, parsed) {
        (Heard::Refused(refusal), Err(other)) => {
            assert_eq!(refusal, other);
            assert_eq!(after, (down_at, deadline));
        }
        (Heard::Stranger { source }, Ok(received)) => {
            assert_eq!(source, received.source);
            assert!(config.peer.is_some_and(|peer| peer != source));
            assert_eq!(after, (down_at, deadline));
        }
        (Heard::Resigned, Ok(received)) => {
            assert_eq!(received.advertisement.priority, 0);
            assert!(after.0.is_none_or(|at| at < now + router.master_down_interval()));
        }
        (Heard::Master { source, priority }, Ok(received)) => {
            assert_eq!((source, priority), (received.source, received.advertisement.priority));
            assert!(after.0.is_none_or(|at| at == now + router.master_down_interval()));
        }
        (heard, parsed) => panic!("{heard:?} of {parsed:?}"),
    }
    assert_eq!(after.1, deadline, "a Master goes on until it is told otherwise");
}

/// The receiver to whom it is said would take it.
fn said(config: &router::Config, datagrams: &Datagrams) {
    for datagram in datagrams {
        let expected = Expected { own: Some(datagram.destination), ..expected_of(config) };
        let received = Received::parse(&datagram.bytes, &expected).expect("our own are taken");
        assert_eq!(Some(received.source), config.source);
        assert_eq!(received.advertisement.addresses, config.addresses);
    }
}

fn expected_of(config: &router::Config) -> Expected {
    let router::Config { version, vrid, password, interval, source: own, .. } = *config;
    Expected { version, vrid, password, interval, own }
}

fn router_config(choice: u8) -> router::Config {
    let Expected { version, vrid, password, interval, own } = receiver(choice);
    let transports = [Transport::Multicast, Transport::Unicast, Transport::Both];
    let family = if choice & 7 >= 5 && version == Version::V3 { Family::V6 } else { Family::V4 };
    let address = |text: &str| text.parse::<IpAddr>().expect("a constant");
    let (peer, vips): (_, &[&str]) = match (family, vrid) {
        (Family::V6, _) => ("fe80::ff:fe00:101", &["fe80::51", "2001:db8:3::150"]),
        (Family::V4, 50) => ("10.96.153.237", &["10.96.153.239"]),
        (Family::V4, _) => ("192.168.3.101", &["192.168.3.150"]),
    };
    router::Config {
        family,
        version,
        vrid,
        priority: [100, 1, 254, 101][usize::from(choice >> 4 & 3)],
        interval,
        password,
        transport: transports[usize::from(choice >> 6) % 3],
        source: own,
        peer: (choice & 8 == 0).then(|| address(peer)),
        addresses: vips.iter().copied().map(address).collect::<Addresses>(),
    }
}

// ---- beacons -------------------------------------------------------------------------------

const KEY: &str = "a key of sixteen characters";
/// The magic's 4 bytes and the tag's 16.
const TAG_END: usize = 20;

/// The same bytes without the key, with it, and as the fields of reports.
pub fn beacon(input: &[u8]) {
    let mut receiver = peer_of(HostId::Second);
    assert!(receiver.handle_datagram(START, LinkId::Inside, input).is_err());
    let mut cut = Cut::new(input);
    let report = report(&mut cut);
    let datagram = emit(&report);
    assert!(datagram.len() <= tandem::limits::BEACON_BYTES_MAX);

    let bent = bend(&mut cut, &datagram);
    assert!(receiver.handle_datagram(START, LinkId::Outside, &bent).is_err());
    assert_eq!((receiver.report(), receiver.heard_at()), (None, None));

    for link in LinkId::ALL {
        assert_eq!(receiver.handle_datagram(START, link, &datagram), Ok(false));
        assert_eq!(receiver.handle_datagram(START, link, &datagram), Err(Refusal::Replayed));
    }
    assert_eq!(receiver.report(), Some(&Report { sequence: 1, ..report }));
    signed(cut.rest());
    runs(&mut cut);
}

fn peer_of(me: HostId) -> Peer {
    let config = peer::Config {
        key: Secret::Text(KEY.into()),
        port: 7423,
        interval: Duration::from_millis(200),
        kind: Kind::Tandem,
        witnesses: Vec::new(),
    };
    Peer::new(&config, me)
}

/// The first beacon of a run that says so.
fn emit(report: &Report) -> Vec<u8> {
    peer_of(HostId::First).poll_beacon(START, report.clone()).expect("the first is due at once")
}

/// What stands behind the tag of a beacon whose report has these fields.
pub fn beacon_body(fields: &[u8]) -> Vec<u8> {
    emit(&report(&mut Cut::new(fields)))[TAG_END..].to_vec()
}

/// A report of the first host.
fn report(cut: &mut Cut<'_>) -> Report {
    let bits = cut.byte();
    let is = |bit: u8| bits >> bit & 1 == 1;
    let id = u64::from(cut.byte());
    let handovers = [
        Handover::None,
        Handover::Holding { id },
        Handover::Closed { id },
        Handover::Refused { id },
    ];
    let roles = [Role::Joining, Role::Standby, Role::Promoting, Role::Active, Role::Demoting];
    Report {
        host: HostId::First,
        boot_id: u64::from_le_bytes(cut.number()),
        sequence: 0,
        config_digest: cut.number(),
        role: roles[usize::from(cut.byte()) % roles.len()],
        epoch: u64::from_le_bytes(cut.number()),
        was_source: is(0),
        hears: [is(1), is(2)],
        carrier: [is(3), is(4)],
        holds_vips: is(5),
        is_quiet: is(6),
        is_leaving: is(7),
        handover: handovers[usize::from(cut.byte()) % handovers.len()],
        wish: is(0).then_some(id),
        database: DatabaseReport {
            is_up: is(1),
            is_writable: is(2),
            is_replicating: is(3),
            lag_seconds: is(4).then_some(id),
            position: heapless::String::try_from(&*String::from_utf8_lossy(cut.piece())).ok(),
        },
        link_local: [is(5).then(|| Ipv6Addr::from(cut.number::<16>())), None],
        orders: Orders { in_maintenance: is(6), hold: Hold { number: id, is_on: is(7) } },
        is_ill: is(7),
        declined: is(6).then_some(id),
        php_drain: [Hold { number: id, is_on: is(5) }, Hold::default()],
        sections: [0; 8],
        build: peer::Build::default(),
        update: None,
        update_failed: None,
        backed: id,
        keeps: id,
    }
}

/// The datagram with a byte changed, with its end cut off, or with more behind it.
fn bend(cut: &mut Cut<'_>, datagram: &[u8]) -> Vec<u8> {
    let mut bent = datagram.to_vec();
    let place = usize::from(u16::from_le_bytes(cut.number())) % bent.len();
    match cut.byte() {
        0 => bent.truncate(place),
        1 => bent.push(cut.byte()),
        mask => bent[place] ^= mask,
    }
    bent
}

fn sign(body: &[u8]) -> Vec<u8> {
    let mut code = Hmac::<Sha256>::new_from_slice(KEY.as_bytes()).expect("any length will do");
    code.update(body);
    let tag = code.finalize().into_bytes();
    [b"TDM1", &tag[..TAG_END - 4], body].concat()
}

/// Anything under the right key: what is taken is taken once, and said again it means the same.
fn signed(body: &[u8]) {
    let datagram = sign(body);
    let mut receiver = peer_of(HostId::Second);
    let Ok(is_new_run) = receiver.handle_datagram(START, LinkId::Inside, &datagram) else {
        assert_eq!(receiver.report(), None);
        return;
    };
    assert!(!is_new_run);
    let again = receiver.handle_datagram(START, LinkId::Inside, &datagram);
    assert_eq!(again, Err(Refusal::Replayed));
    let report = receiver.report().expect("it was taken").clone();
    assert_eq!(report.host, HostId::First);
    let mut other = peer_of(HostId::Second);
    assert_eq!(other.handle_datagram(START, LinkId::Inside, &emit(&report)), Ok(false));
    assert_eq!(other.report(), Some(&Report { sequence: 1, ..report }));
}

/// Beacons of up to eight runs of the peer's daemon, in any order: none is taken twice.
fn runs(cut: &mut Cut<'_>) {
    let first = beacon_body(&[]);
    // Behind the tag: the host, the run, the sequence; each below 128 and so one byte.
    let body = |run: u8, sequence: u8| {
        let mut body = first.clone();
        assert_eq!(body[..3], [0, 0, 1]);
        body[1..3].copy_from_slice(&[run, sequence]);
        sign(&body)
    };
    let mut receiver = peer_of(HostId::Second);
    let mut taken = BTreeSet::new();
    for _ in 0..64 {
        if cut.is_empty() {
            return;
        }
        let [choice, sequence] = cut.number();
        let (run, sequence) = (choice & 7, sequence & 0x7f);
        let link = LinkId::ALL[usize::from(choice >> 7)];
        if receiver.handle_datagram(START, link, &body(run, sequence)).is_ok() {
            assert!(taken.insert((run, sequence, link.index())), "taken twice");
        }
    }
}

// ---- the node ------------------------------------------------------------------------------

static CONFIG: LazyLock<config::Config> =
    LazyLock::new(|| config::Config::parse(EXAMPLE).expect("the example parses"));

/// Beside a keepalived a host serves without its database's word, which no input can give.
static FOREIGN: LazyLock<config::Config> = LazyLock::new(|| {
    let text =
        EXAMPLE.replacen("[peer] ", "[peer]\nkind = \"keepalived\"\ninterval = \"700ms\" ", 1);
    config::Config::parse(&text).expect("the example parses")
});

/// An operator waits for as long as that before he looks what is wrong.
const QUIET: Duration = Duration::from_secs(30);
/// Orders of one turn that do not hang on the input's length: all links' frames and addresses.
const OUTPUTS_MAX: usize = 64;

/// A node that has just started and hears garbage takes no virtual address.
pub fn node(input: &[u8]) {
    let mut cut = Cut::new(input);
    let control = cut.byte();
    let me = HostId::ALL[usize::from(control & 1)];
    let mut node = Node::new(CONFIG.clone(), me, 1, Persistent::default());
    let mut now = START;
    while !cut.is_empty() {
        let Some(input) = step(&mut cut, &mut now, &node) else { continue };
        if now >= START + QUIET {
            return;
        }
        assert!(!takes_address(&turn(&mut node, now, input)));
    }
    while control & 2 != 0 && now < START + QUIET {
        now = node.deadline().expect("beacons are due").max(now + Duration::from_millis(1));
        assert!(!takes_address(&turn(&mut node, now, Input::Wake)));
    }
}

/// A node that serves beside a keepalived: what it does not accept neither makes it stop nor makes
/// it speak without end.
pub fn serving(input: &[u8]) {
    let mut cut = Cut::new(input);
    // The inputs of `node` are of use here too.
    let _control = cut.byte();
    let mut node = Node::new(FOREIGN.clone(), HostId::First, 1, Persistent::default());
    let mut now = START;
    let links = [link_message(1, "eth0", true), link_message(2, "eth1", true)].concat();
    turn(&mut node, now, Input::Netlink { datagram: links });
    let mut is_serving = false;
    while !is_serving {
        now = node.deadline().expect("beacons are due").max(now + Duration::from_millis(1));
        is_serving = takes_address(&turn(&mut node, now, Input::Wake));
        assert!(now < START + 2 * LISTEN_MAX, "it is entitled to serve");
    }
    let (mut is_garbage, mut said) = (true, 0);
    let since = now;
    while !cut.is_empty() {
        let Some(input) = step(&mut cut, &mut now, &node) else { continue };
        is_garbage &= is_refused(&input);
        let outputs = turn(&mut node, now, input);
        said += outputs.iter().filter(|output| is_said(output)).count();
        if is_garbage {
            assert!(!outputs.iter().any(removes_address));
            let seconds = now.since(since).as_secs() + 1;
            assert!(u64::try_from(said).is_ok_and(|said| said <= 64 + 16 * seconds), "{said}");
        }
    }
}

/// The next input, later by up to a second: shorter than what counts as a stall.
fn step(cut: &mut Cut<'_>, now: &mut Instant, node: &Node) -> Option<Input> {
    let (choice, delay) = (cut.byte(), cut.byte());
    *now = *now + Duration::from_millis(4 * u64::from(delay));
    let link = LinkId::ALL[usize::from(choice >> 3 & 1)];
    let mut bytes = cut.piece().to_vec();
    Some(match choice & 7 {
        0 | 1 => {
            if choice & MEND != 0 {
                mend(&mut bytes, PROTOCOL, VRRP_CHECKSUM);
            }
            Input::Vrrp { link, datagram: bytes }
        }
        2 | 3 => Input::Frame { device: DeviceId::from(link), frame: bytes },
        4 => Input::Beacon { link, datagram: bytes },
        5 if choice & 0x20 != 0 => Input::Icmp { link, datagram: bytes },
        5 => Input::Netlink { datagram: bytes },
        6 if choice & 8 == 0 => Input::NetlinkLost,
        6 => Input::ClockSet { seconds: i64::from(delay) - 128 },
        _ => {
            *now = node.deadline()?.max(*now);
            Input::Wake
        }
    })
}

/// Hands the input in and drains the outputs.
fn turn(node: &mut Node, now: Instant, input: Input) -> Vec<Output> {
    let length = match &input {
        Input::Netlink { datagram } => datagram.len(),
        _ => 0,
    };
    node.handle(now, input);
    let outputs: Vec<_> = std::iter::from_fn(|| node.poll_output()).collect();
    assert!(outputs.len() <= OUTPUTS_MAX + length / 4, "{} outputs", outputs.len());
    let deadline = node.deadline().expect("beacons are due");
    assert!(deadline > now && deadline <= now + Duration::from_secs(1), "{deadline:?} at {now:?}");
    outputs
}

fn takes_address(outputs: &[Output]) -> bool {
    outputs.iter().any(|output| match output {
        Output::Netlink { request } => {
            netlink::parse(request).iter().any(|event| matches!(event, Event::AddressAdded { .. }))
        }
        _ => false,
    })
}

fn removes_address(output: &Output) -> bool {
    match output {
        Output::Netlink { request } => netlink::parse(request)
            .iter()
            .any(|event| matches!(event, Event::AddressRemoved { .. })),
        _ => false,
    }
}

/// For everybody on a link to hear.
fn is_said(output: &Output) -> bool {
    matches!(output, Output::SendVrrp { .. } | Output::SendFrame { .. })
}

/// Nothing that the node on the first host could believe.
fn is_refused(input: &Input) -> bool {
    let Input::Vrrp { link, datagram } = input else {
        return !matches!(input, Input::Netlink { .. });
    };
    let expected = match link {
        LinkId::Outside => receiver(1),
        LinkId::Inside => receiver(0),
    };
    Received::parse(datagram, &expected).is_err()
}

/// RTM_NEWLINK: struct ifinfomsg, IFLA_IFNAME, IFLA_ADDRESS; then the end of the list.
pub fn link_message(index: u32, name: &str, has_carrier: bool) -> Vec<u8> {
    let flags = if has_carrier { 0x41u32 } else { 1 };
    let mut body =
        [&[0, 0, 1, 0][..], &index.to_ne_bytes(), &flags.to_ne_bytes(), &[0; 4]].concat();
    let mac = [2, 0, 0, 0, 9, u8::try_from(index).unwrap_or(0)];
    for (kind, value) in [(3u16, format!("{name}\0").as_bytes()), (1, &mac)] {
        let length = u16::try_from(value.len() + 4).expect("a name is short");
        body.extend([length.to_ne_bytes(), kind.to_ne_bytes()].concat());
        body.extend(value);
        body.resize(body.len().next_multiple_of(4), 0);
    }
    let length = u32::try_from(16 + body.len()).expect("a message is short").to_ne_bytes();
    let mut bytes = [&length[..], &[16, 0, 0, 0], &[0; 8], &body].concat();
    bytes.extend([&20u32.to_ne_bytes()[..], &[3, 0, 0, 0], &[0; 8], &[0; 4]].concat());
    bytes
}
