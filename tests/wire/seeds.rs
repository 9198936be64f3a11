//! Seeds: the captured vectors and what the code itself makes, as inputs of each target.
//!
//! In: tests/vectors, tandem's own emitters. Out: inputs by target; the corpus of libFuzzer.
//! Must not: depend on anything else, so that a number is enough to repeat a test.

use std::time::Duration;

use tandem::net::nd::Neighbour;
use tandem::net::netlink;
use tandem::sql::handshake::{Facts, Plugin, RELAYED, Response, SALT_BYTES};
use tandem::sql::login::{Door, Tls};
use tandem::sql::packet;

use super::targets::{LIKE_SENDER, MEND, beacon_body, console, link_message};
use super::web_seeds;

const VRRP: &str = include_str!("../vectors/vrrp/keepalived-2.2.7.txt");
const ARP: &str = include_str!("../vectors/arp/keepalived-2.2.7.txt");
const ND: &str = include_str!("../vectors/nd/keepalived-2.2.7.txt");
const ICMP: &str = include_str!("../vectors/icmp/linux.txt");

pub type Vector = (&'static str, Vec<u8>);

pub fn vrrp() -> Vec<Vector> {
    vectors(VRRP)
}

pub fn arp() -> Vec<Vector> {
    vectors(ARP)
}

pub fn nd() -> Vec<Vector> {
    vectors(ND)
}

/// A name and hexadecimal digits a line.
fn vectors(file: &'static str) -> Vec<Vector> {
    let lines = file.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| line.split_once(' ').expect(line))
        .map(|(name, hex)| (name, bytes(hex)))
        .collect()
}

pub fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|it| u8::try_from(it).ok());
    let byte = |pair: &[u8]| Some(digit(pair[0])? << 4 | digit(pair[1])?);
    digits.chunks_exact(2).map(|pair| byte(pair).expect("hexadecimal digits")).collect()
}

/// Messages of the kernel, and requests that read like them.
fn netlink() -> Vec<Vec<u8>> {
    let v4 = "192.168.3.150/24".parse().expect("a constant");
    let v6 = "fe80::51/64".parse().expect("a constant");
    let lease = Some(Duration::from_secs(2));
    let mut refused = netlink::dump_links(7);
    refused[4] = 2;
    refused[16..20].copy_from_slice(&(-17i32).to_ne_bytes());
    vec![
        netlink::set_address(1, 1, v4, Some("eth0:1"), lease),
        netlink::set_address(2, 2, v6, None, None),
        netlink::remove_address(3, 2, v4),
        refused,
        link_message(1, "eth0", true),
        [link_message(1, "eth0", true), link_message(2, "eth1", false)].concat(),
    ]
}

fn frames() -> Vec<Vec<u8>> {
    arp().into_iter().chain(nd()).map(|(_, frame)| frame).collect()
}

/// The inputs that a target's mutations start from.
pub fn of(target: &str) -> Vec<Vec<u8>> {
    let datagrams = || vrrp().into_iter().map(|(_, datagram)| datagram);
    let behind = |control: u8, bytes: Vec<u8>| [&[control][..], &bytes].concat();
    match target {
        "vrrp" => {
            let own = datagrams().map(|it| behind(LIKE_SENDER, it));
            let list = datagrams().zip(0u8..).map(|(it, place)| behind(MEND | place & 7, it));
            own.chain(list).collect()
        }
        "arp" => arp().into_iter().map(|(_, frame)| frame).collect(),
        "nd" => {
            let probe =
                Neighbour::probe(Default::default(), "fe80::51".parse().expect("it is one"));
            let frames = nd().into_iter().map(|(_, frame)| frame).chain([probe.emit()]);
            frames.map(|frame| behind(MEND, frame)).collect()
        }
        "icmp" => vectors(ICMP).into_iter().map(|(_, datagram)| datagram).collect(),
        "netlink" => netlink(),
        "beacon" => beacons(),
        "router" => {
            (0..8).flat_map(|choice| datagrams().map(move |it| router(choice, &it))).collect()
        }
        "node" | "serving" => scenes(),
        "sql_packets" => replies(),
        "sql_login" => log_ins(),
        "sql_statement" => STATEMENTS.iter().map(|text| text.as_bytes().to_vec()).collect(),
        "sql_admin" => {
            let one = COMMANDS.lines().map(|line| behind(0, line.as_bytes().to_vec()));
            let frames = COMMANDS.lines().flat_map(|line| framed(0, &[b"\x03", line.as_bytes()]));
            let all = [behind(0xa0, COMMANDS.into()), behind(2, frames.collect())];
            one.chain(all).chain([behind(1, COMMANDS.into())]).collect()
        }
        "port" => requests(),
        "control" | "keys" => console::seeds(target),
        other => web_seeds::of(other),
    }
}

/// What a web server in front may send, each cut in its own way.
fn requests() -> Vec<Vec<u8>> {
    let record = |kind: u8, id: u8, content: &[u8]| {
        let length = u8::try_from(content.len()).expect("short");
        [&[1, kind, 0, id, 0, length, 1, 0], content, b"\x55"].concat()
    };
    let begin = |id, role, flags| record(1, id, &[0, role, flags, 0, 0, 0, 0, 0]);
    let params = b"\x0e\x04REQUEST_METHODPOST\x0e\x01CONTENT_LENGTH2\x09\x03PHP_VALUEa=b";
    let post = [
        begin(1, 1, 1),
        record(4, 1, params),
        record(4, 1, b""),
        record(5, 1, b"hi"),
        record(5, 1, b""),
    ]
    .concat();
    let get = [begin(7, 1, 0), record(4, 7, b""), record(5, 7, b"")].concat();
    let values = record(9, 0, b"\x0e\0FCGI_MAX_CONNS\x0f\0FCGI_MPXS_CONNS");
    let all = [&post[..], &values, &post, &begin(2, 1, 1), &begin(1, 3, 0), &record(99, 0, b"?")];
    let streams = [
        (0x3f, post.clone()),
        (0x05, [&post[..], &post, &get].concat()),
        (0x80, [&post[..], &record(2, 1, b""), &get].concat()),
        (0xc3, all.concat()),
        (0x11, all.concat()),
    ];
    streams.map(|(control, stream)| [vec![control], stream].concat()).to_vec()
}

/// A packet of MySQL.
fn framed(sequence: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet::frame(&mut bytes, sequence, |out| out.extend(parts.concat()));
    bytes
}

/// One of each kind, and cut in several ways.
fn replies() -> Vec<Vec<u8>> {
    let definition = framed(2, &[b"\x03def\0\0\0\x01a\0\x0c\x08\0\x20\0\0\0\x03\0\0\0\0\0"]);
    let eof = framed(3, &[b"\xfe\0\0\x02\0"]);
    let rows = [framed(4, &[b"\x01a"]), framed(5, &[b"\xfb"])].concat();
    let ok = framed(1, &[b"\0\0\0\x02\0\0\0"]);
    let table = [framed(1, &[b"\x01"]), definition.clone()].concat();
    let new_eof = framed(5, &[b"\xfe\0\0\x02\0\0\0"]);
    let more = framed(1, &[b"\0\0\0\x0a\0\0\0"]);
    let prepared = framed(1, &[b"\0\x07\0\0\0\x01\0\x01\0\0\0\0"]);
    [
        (0, [&ok[..]].concat()),
        (0x08, [&table, &eof[..], &rows, &eof].concat()),
        (0x58, [&table, &rows[..], &new_eof].concat()),
        (0x0a, [&more, &table[..], &eof, &eof].concat()),
        (0x81, framed(1, &[b"\xfb/etc/passwd"])),
        (0x15, framed(1, &[b"\xff\x15\x04#28000Access denied"])),
        (0x11, [&prepared, &definition[..], &eof, &definition, &eof].concat()),
        (0x02, [&definition, &eof[..]].concat()),
    ]
    .into_iter()
    .map(|(control, bytes)| [&[control][..], &bytes].concat())
    .collect()
}

/// Clients by either plugin, one that switches; servers that greet, switch, want a full proof.
fn log_ins() -> Vec<Vec<u8>> {
    let mut inputs = Vec::new();
    for plugin in [Plugin::Native, Plugin::CachingSha2] {
        for (user, proof) in [(&b"app"[..], &[7; 20][..]), (b"open", b""), (b"nobody", b"x")] {
            let mut bytes = vec![u8::from(plugin == Plugin::CachingSha2)];
            packet::frame(&mut bytes, 1, |out| {
                let response = Response {
                    capabilities: RELAYED,
                    collation: 45,
                    user,
                    proof,
                    database: Some(b"t"),
                    plugin: Some(plugin),
                };
                response.emit(out);
            });
            bytes.extend(framed(3, &[&[9; 32]]));
            inputs.push(bytes);
        }
        let mut bytes = vec![0];
        let facts = Facts { plugin, ..Facts::unknown() };
        Door::new([b'a'; SALT_BYTES], plugin, Tls::Off).greet(&facts, 1, &mut bytes);
        bytes.extend(framed(2, &[b"\xfecaching_sha2_password\0abcdefghijklmnopqrst\0"]));
        bytes.extend(framed(4, &[b"\x01\x04"]));
        bytes.extend(framed(6, &[b"\x01-----BEGIN PUBLIC KEY-----\nMIIB"]));
        inputs.push(bytes);
    }
    inputs.push(b"\0app\0\x03abcdb\0\x2d\0mysql_native_password\0".to_vec());
    inputs
}

const STATEMENTS: [&str; 14] = [
    "SELECT a, `b c` FROM t.u WHERE id = 5 AND x IN (1, -2, 'it''s', NULL) -- why",
    "/*!40001 SELECT */ 1 /* master */",
    "INSERT INTO t (a) VALUES (1, 2), (3, 'x\\'y'), (DEFAULT, NOW())",
    "WITH x (a) AS (SELECT 1) UPDATE t SET a = @b := @b + 1 LIMIT 1",
    "SET NAMES utf8mb4 COLLATE utf8mb4_bin, @@session.sql_mode = 'ANSI_QUOTES', autocommit = 0",
    "SELECT \"a\", _utf8mb4'x', x'00', 0x1f, 1e5, .5, 1.FROM",
    "BEGIN; DELETE FROM t; COMMIT;",
    "KILL QUERY 7",
    "USE `a``b`",
    "EXPLAIN ANALYZE SELECT * FROM t FOR UPDATE",
    "SELECT GET_LOCK('a', 1), LAST_INSERT_ID(), NEXTVAL(s), f(1)",
    "SHOW FULL COLUMNS FROM t; SHOW WARNINGS",
    "SELECT 5--1, a->>'$.x', @`x`, @'y', @@global.z # c",
    "CREATE TEMPORARY TABLE t (a INT) /*M!100100 ENGINE=InnoDB */",
];

const COMMANDS: &str = "SELECT * FROM help\nSELECT * FROM backends;\nSET OFFLINE 1\nset online 2;
ADD MASTER 127.0.0.1:1\nADD SLAVE 10.0.0.1:3306\nREMOVE BACKEND 2\nSELECT * FROM clients
ADD CLIENT 192.168.3\nREMOVE CLIENT '10.0.0.1';\nSELECT * FROM pwds\nADD PWD u:it's /* x */
ADD PWD 'u v:a''b;';\nADD ENPWD u:KsWNCR6qyNk=\nREMOVE PWD open\nSAVE CONFIG\nSELECT VERSION
SHOW SESSIONS\nSHOW POOL\nSHOW STATS\nSHOW DIGESTS\nSHOW WARNINGS\nSET NAMES utf8
SELECT @@version_comment, @@session.x AS `y`, DATABASE() LIMIT 1\nSHOW VARIABLES LIKE 'a%'
/* mysql-connector-java-8 */SELECT  @@license AS license, CONNECTION_ID()";

/// Fields of a report, where it is bent and how, then a body to be signed, which is also the steps
/// of several runs.
fn beacons() -> Vec<Vec<u8>> {
    let bents = [[5, 0, 1], [60, 0, 0], [30, 0, 0x80], [3, 0, 0xff]];
    let fields = |bits: u8| {
        let address: &[u8] = if bits & 0x20 == 0 { &[] } else { &[0xfe; 16] };
        [&[bits][..], &[7; 8], &[2; 8], &[3, 1], &[9; 8], &[2, 5], b"0-1-5", address].concat()
    };
    let bits = [0, 0x11, 0x2e, 0xff];
    let inputs = bits.into_iter().zip(bents);
    inputs
        .map(|(bits, bent)| [&fields(bits)[..], &bent, &beacon_body(&fields(!bits))].concat())
        .collect()
}

/// A step of `router`, `node` and `serving`.
fn step(what: u8, delay: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u8::try_from(bytes.len()).expect("a piece is short");
    [&[what, delay, length], bytes].concat()
}

/// Carrier, traffic, an advertisement twice, serving, the advertisement again, the end of serving.
fn router(choice: u8, datagram: &[u8]) -> Vec<u8> {
    let heard = |what| step(what, 20, datagram);
    let steps =
        [heard(0), heard(MEND), vec![5, 0, 7, 0], heard(0), vec![15, 9, 13, 1, 14, 3], heard(0)];
    [&[choice, 3, 0, 4, 10][..], &steps.concat()].concat()
}

/// A kernel that shows both links, then one of each kind of input, then everything; and somebody
/// who claims an address again and again.
fn scenes() -> Vec<Vec<u8>> {
    let [outside, inside] = [0, 8];
    let links = [link_message(1, "eth0", true), link_message(2, "eth1", true)];
    let shown: Vec<u8> = links.iter().flat_map(|it| step(5, 1, it)).collect();
    let advertisements = vrrp().into_iter().map(|(name, datagram)| {
        step(if name.contains("outside") { outside } else { inside }, 50, &datagram)
    });
    let framed = vrrp().into_iter().map(|(_, datagram)| {
        let kind = if datagram[0] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] };
        step(inside | 2, 30, &[&[2; 12][..], &kind, &datagram].concat())
    });
    let seen = frames().into_iter().map(|frame| step(inside | 2, 40, &frame));
    let claims = frames().into_iter().map(|frame| step(inside | 2, 1, &frame).repeat(60));
    let claims = claims.map(|steps| [&[0][..], &steps].concat());
    let told = netlink().into_iter().map(|datagram| step(5, 20, &datagram));
    let steps: Vec<_> = advertisements.chain(framed).chain(seen).chain(told).collect();
    let waking = step(7, 0, &[]).repeat(12);
    let one = steps.iter().map(|it| [&[2][..], &shown, it, &waking].concat());
    one.chain(claims).chain([[&[1][..], &shown, &steps.concat()].concat()]).collect()
}
