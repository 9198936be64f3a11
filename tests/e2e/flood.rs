//! A flood of bogus VRRP: it delays nobody's advertisement and keeps nobody from taking over.
//!
//! In: 50,000 packets a second on both links, on our VRIDs: garbage, wrong passwords, wrong
//! checksums, in the names of strangers and of the peer. Out: the gaps between advertisements as a
//! third host sees them; who holds the addresses. Must not: send for longer than it says.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tandem::os::link::DeviceSockets;
use tandem::time::Rng;
use tandem::vrrp::packet::{Addresses, Advertisement, GROUP, Version, password_data};
use tandem::wire::internet_checksum;

use crate::host::text;
use crate::pair::{OUTSIDE_VIP, Pair};
use crate::wire::Kind;
use crate::world::{Link, Outcome, wait_until};
use crate::{check, has_finding, on_a_pair, wire};

const PACKETS_PER_SECOND: u64 = 50_000;
const INTERVAL: Duration = Duration::from_secs(1);
/// Three intervals, the skew of priority 100, and a margin for a shared machine.
const MASTER_DOWN: Duration = Duration::from_millis(3610 + 1000);

/// Ethernet frames to the group, each wrong in a way of its own.
fn bogus_frames(link: Link) -> Vec<Vec<u8>> {
    let (net, vrid) = match link {
        Link::Outside => ([10, 96, 153], 50),
        Link::Inside => ([192, 168, 3], 51),
    };
    let at = |last: u8| IpAddr::V4(Ipv4Addr::new(net[0], net[1], net[2], last));
    let peers: [u8; 2] = if link == Link::Outside { [110, 114] } else { [100, 101] };
    let advertisement = Advertisement {
        version: Version::V2,
        vrid,
        priority: 255,
        interval: INTERVAL,
        password: Some(password_data("wrong")),
        addresses: Addresses::from_slice(&[OUTSIDE_VIP.into()]).unwrap_or_default(),
    };
    let stranger = Advertisement { password: Some(password_data("3489")), ..advertisement.clone() };
    let mut rng = Rng::new(0x5eed);
    (0..64_u16)
        .map(|number| {
            let source = match number % 4 {
                0 => at(77),
                1 => at(peers[0]),
                _ => at(peers[1]),
            };
            let sent = if number % 4 == 0 { &stranger } else { &advertisement };
            let mut datagram = sent.emit(source, GROUP.into(), number + 1);
            if number % 4 == 3 {
                // Garbage behind a VRID of ours.
                for byte in datagram.iter_mut().skip(22) {
                    *byte = rng.next_u64().to_le_bytes()[0];
                }
            }
            // A raw socket leaves the header's checksum to the kernel; a packet socket does not.
            let sum = internet_checksum(&[&datagram[..20]]).to_be_bytes();
            datagram[10..12].copy_from_slice(&sum);
            let mut frame = vec![1, 0, 0x5e, 0, 0, 0x12, 2, 0x66, 0, 0, 0, 7, 8, 0];
            frame.extend(datagram);
            frame
        })
        .collect()
}

/// Floods both links while `law` runs; returns packets a second.
fn flooded(pair: &mut Pair, law: impl FnOnce(&mut Pair) -> Outcome<()>) -> Outcome<f64> {
    let sockets = Link::ALL.map(|link| {
        pair.client.on_network(|| DeviceSockets::open(link.device(), false).map_err(text))
    });
    let [outside, inside] = sockets;
    let links = [(outside??, bogus_frames(Link::Outside)), (inside??, bogus_frames(Link::Inside))];
    let (is_over, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let start = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) && start.elapsed() < Duration::from_secs(60) {
                let due = u64::try_from(start.elapsed().as_micros()).unwrap_or(0)
                    * PACKETS_PER_SECOND
                    / 1_000_000;
                while sent.load(Ordering::Relaxed) < due {
                    for (sockets, frames) in &links {
                        let number = sent.fetch_add(1, Ordering::Relaxed);
                        let place = usize::try_from(number).unwrap_or(0) % frames.len();
                        let _full_queue = sockets.send(&frames[place]);
                    }
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let done = law(pair);
        is_over.store(true, Ordering::Relaxed);
        let packets = u32::try_from(sent.load(Ordering::Relaxed)).unwrap_or(u32::MAX);
        done.map(|()| f64::from(packets) / start.elapsed().as_secs_f64())
    })
}

#[test]
fn a_flood_of_bogus_advertisements_delays_none_and_keeps_nobody_from_taking_over() {
    on_a_pair(|pair| {
        let rate = flooded(pair, |pair| {
            let span = Duration::from_secs(8);
            let heard = wire::hear(&pair.client, Link::Outside, Kind::Vrrp, span, || Ok(()))?;
            let own = heard.iter().filter(|(_, frame)| wire::priority(frame) == Some(254));
            let times: Vec<Instant> = own.map(|(at, _)| *at).collect();
            let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
            let worst = gaps.max().ok_or("no advertisement was heard")?;
            println!("longest gap between advertisements {worst:?}");
            check(worst <= INTERVAL * 2, || format!("an advertisement came after {worst:?}"))?;
            check(pair.is_settled(0), || "the flood moved the roles".into())?;
            check(has_finding(pair, 1, "password-differs"), || {
                format!("{:?}", pair.servers[1].status())
            })?;
            pair.power_off(0)?;
            let after =
                wait_until("server2 takes over", MASTER_DOWN, || pair.servers[1].holds_all())?;
            println!("server2 has the addresses after {after:?}");
            Ok(())
        })?;
        println!("{rate:.0} bogus packets a second");
        let log = pair.servers[1].host.log_text("tandem");
        check(log.lines().count() < 100, || format!("{} lines of log", log.lines().count()))
    });
}
