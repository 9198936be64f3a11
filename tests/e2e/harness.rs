//! Tests of the harness itself: what the other tests stand on must be true without tandem.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::database::{self, Flavour};
use crate::host::Host;
use crate::pair::{OUTSIDE_VIP, Pair, VIPS};
use crate::sampler::arrival;
use crate::world::{Link, wait_until};

fn ip(host: &Host, words: &str) {
    let words: Vec<&str> = ["ip"].into_iter().chain(words.split(' ')).collect();
    host.read(&words).expect("ip");
}

/// Whether the client reaches php-fpm at the outside virtual address.
fn reaches(pair: &Pair) -> bool {
    let target = SocketAddr::from((OUTSIDE_VIP, 9000));
    let wait = Duration::from_millis(1500);
    pair.client.on_network(|| TcpStream::connect_timeout(&target, wait).is_ok()).expect("enter")
}

#[test]
fn hosts_boot_die_and_boot_again_with_their_disk() {
    let mut pair = Pair::new(Flavour::find("mariadb").expect("flavour")).expect("pair");
    let host = &pair.servers[0].host;
    assert_eq!(host.read(&["hostname"]).expect("hostname").trim(), "server1");
    let rows = database::ask(host, "SELECT @@read_only, @@server_id, @@hostname").expect("sql");
    assert_eq!(rows, [["1", "1", "server1"]]);
    ip(host, "addr add 10.96.153.239/24 dev eth0");
    ip(host, "addr add 192.168.3.150/24 dev eth1");
    wait_until("the addresses are seen", Duration::from_secs(1), || pair.servers[0].holds_all())
        .expect("seen");
    assert!(reaches(&pair));

    pair.pull(0, &[Link::Outside]).expect("pull");
    let carrier = |number: usize| {
        pair.servers[number].host.read(&["cat", "/sys/class/net/eth0/carrier"]).expect("carrier")
    };
    assert_eq!(carrier(0).trim(), "0", "a pulled cable is seen by the host");
    assert!(!reaches(&pair));
    pair.replug(0, &[Link::Outside]).expect("replug");
    assert!(reaches(&pair));
    pair.world.mute("server1", Link::Outside, true).expect("mute");
    assert_eq!(carrier(0).trim(), "1", "a silent cut is not seen by the host");
    assert!(!reaches(&pair));
    pair.world.mute("server1", Link::Outside, false).expect("unmute");
    assert!(reaches(&pair));

    let moment = pair.power_off(0).expect("off");
    assert!(!reaches(&pair), "is dead");
    ip(&pair.servers[1].host, "addr add 10.96.153.239/24 dev eth0");
    ip(&pair.servers[1].host, "addr add 192.168.3.150/24 dev eth1");
    wait_until("the addresses are seen", Duration::from_secs(1), || pair.servers[1].holds_all())
        .expect("seen");
    assert!(arrival(&pair.servers[1].spans(), &VIPS, moment).is_some());
    assert_eq!(pair.two_holders(), Duration::ZERO, "the dead hold nothing");

    pair.servers[0].host.boot(&pair.world).expect("boots again");
    let rows = database::start(&mut pair.servers[0].host, &pair.flavour)
        .and_then(|()| database::wait_ready(&mut pair.servers[0].host))
        .and_then(|()| database::ask(&pair.servers[0].host, "SELECT @@read_only"));
    assert_eq!(rows.expect("sql"), [["1"]]);
}
