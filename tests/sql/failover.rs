//! Traps 34 and 60 to 68 of facts/sql.md section 3: servers that are lost, late, full, or change
//! their roles.
//!
//! In: pairs whose servers may die, cables that fail. Out: laws. Must not: know how a pair is made
//! (`servers`); decide who is the source (that is the node's, through `Routes`).

use super::laws::{Kind, on_each};
use super::middle::{Fault, Middle};
use super::raw::*;
use super::*;
use tandem::units::Secret;

fn front(ports: [u16; 2]) -> Front {
    Front::start(ports, |config| config.read_own_writes = false)
}

fn client(front: &Front) -> Raw {
    Raw::log_in(front.address.port(), Hello::default())
}

/// The server gets the statement and executes it, and its answer is lost on the way.
#[test]
fn trap_34_a_statement_whose_answer_was_lost_is_never_sent_again() {
    on_each(&Kind::ALL, |watched| {
        let [source, replica] = watched.pair.ports();
        for (statements, trigger) in [
            (&["BEGIN", "INSERT INTO lawa.log VALUES (1)", "COMMIT /*1*/"][..], &b"/*1*/"[..]),
            (&["INSERT INTO lawa.log VALUES (2) /*2*/"], b"/*2*/"),
        ] {
            let cable = Middle::start(source, trigger, Fault::Cut);
            let front = Front::start([cable.port, replica], |config| {
                let password = Secret::Text(String::new());
                config.users.push(tandem::sql::User { name: "law".into(), password });
            });
            front.wait("both servers are known", |status| status.logins >= 2);
            let mut client = watched.log_in(front.address.port(), "lawa");
            watched.asked();
            let (last, before) = statements.split_last().expect("a statement");
            for text in before {
                assert_eq!(value(&client.ask(text)), "OK", "{text}");
            }
            let answer = client.ask(last);
            assert_eq!(error_code(&answer), Some(1053), "{last} on {}", watched.kind.name());
            assert!(client.is_closed());
            thread::sleep(Duration::from_millis(300));
            let count = |log: &[u8]| log.windows(trigger.len()).filter(|it| *it == trigger).count();
            assert_eq!(watched.asked().map(|log| count(&log)), [1, 0], "{last}");
        }
        assert_eq!(watched.pair.sql(0, "SELECT COUNT(*) FROM lawa.log"), "2", "both were done");
    });
}

#[test]
fn trap_60_reads_go_to_the_source_while_no_replica_is_fit() {
    on_each(&Kind::ALL, |watched| {
        let front = watched.front(|_| {});
        let mut client = watched.log_in(front.address.port(), "lawa");
        assert_eq!(client.value("SELECT name FROM mark"), "second");
        front.route(&routes(Some(HostId::First), [false, false]));
        assert_eq!(client.value("SELECT name FROM mark"), "first", "{}", watched.kind.name());
        front.route(&routes(Some(HostId::First), [false, true]));
        assert_eq!(client.value("SELECT name FROM mark"), "second");
    });
}

/// Nobody listens; nobody answers; no connection is left (1040). A user that is missing there is
/// trap 50's.
#[test]
fn trap_60_a_replica_that_lets_nobody_in_costs_no_error() {
    let pair = Pair::own();
    let [source, replica] = pair.ports();
    let nobody = front([source, 1]);
    assert_eq!(client(&nobody).value("SELECT name FROM mark"), "first");
    pair.sql(1, "SET GLOBAL max_connections = 10");
    let full: Vec<_> =
        (0..11).filter_map(|_| Raw::try_log_in(replica, Hello::default()).ok()).collect();
    let refused = Raw::try_log_in(replica, Hello::default()).err().expect("is full");
    assert_eq!(error_code(&[refused]), Some(1040));
    let front = front([source, replica]);
    let mut reader = client(&front);
    for _ in 0..3 {
        assert_eq!(reader.value("SELECT name FROM mark"), "first");
    }
    drop(full);
    let since = Clock::now();
    while reader.value("SELECT name FROM mark") != "second" {
        assert!(since.elapsed() < Duration::from_secs(5), "it is asked again");
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn trap_61_a_result_that_broke_off_is_not_begun_again() {
    let pair = Pair::own();
    let front = front(pair.ports());
    front.wait("both servers are known", |status| status.logins >= 2);
    let mut reader = client(&front);
    reader.send_query(b"SELECT seq, REPEAT('x', 1000) FROM seq_1_to_1000000");
    for _ in 0..4 {
        reader.packet();
    }
    let mut rows = Vec::new();
    let mut is_killed = false;
    loop {
        let packet = reader.packet();
        if packet == CLOSED || packet.1.first() == Some(&0xff) {
            break;
        }
        let length = usize::from(packet.1[0]);
        rows.push(lossy(&packet.1[1..=length]).parse::<usize>().expect("a number"));
        if rows.len() == 100 && !std::mem::replace(&mut is_killed, true) {
            pair.kill(1);
        }
    }
    assert!(is_killed && rows.len() < 1_000_000, "{}", rows.len());
    assert!(rows.iter().enumerate().all(|(index, row)| index + 1 == *row), "each row once");
    assert_eq!(client(&front).value("SELECT name FROM mark"), "first");
}

#[test]
fn trap_62_held_statements_keep_their_order() {
    let pair = Pair::shared();
    let front = front(pair.ports());
    pair.sql(0, "CREATE TABLE t.ordered (a INT AUTO_INCREMENT PRIMARY KEY, b INT)");
    let mut writer = client(&front);
    assert_eq!(writer.value("SELECT name FROM mark FOR UPDATE"), "first");
    front.route(&routes(None, [false, true]));
    assert_eq!(client(&front).value("SELECT name FROM mark"), "second", "reads go on");
    for number in 0..20 {
        writer.send_query(format!("INSERT INTO ordered (b) VALUES ({number})").as_bytes());
    }
    front.wait("they are held", |status| status.held == 1);
    front.route(&routes(Some(HostId::First), [false, true]));
    for _ in 0..20 {
        assert_eq!(value(&writer.results()), "OK");
    }
    assert_eq!(pair.sql(0, "SELECT COUNT(*), SUM(a = b + 1) FROM t.ordered"), "20\t20");
}

#[test]
fn trap_63_a_transaction_that_was_lost_ends_the_session() {
    let pair = Pair::own();
    let front = front(pair.ports());
    front.wait("both servers are known", |status| status.logins >= 2);
    let (mut idle, mut busy) = (client(&front), client(&front));
    for raw in [&mut idle, &mut busy] {
        assert_eq!(value(&raw.ask("BEGIN")), "OK");
        assert_eq!(value(&raw.ask("INSERT INTO mark VALUES ('half')")), "OK");
    }
    busy.send_query(b"SELECT SLEEP(10)");
    thread::sleep(Duration::from_millis(300));
    pair.kill(0);
    front.route(&routes(Some(HostId::Second), [false, false]));
    assert_eq!(error_code(&busy.results()), Some(1053), "in the middle of a statement");
    assert!(busy.is_closed());
    // What comes next must not run as half a transaction on the new source.
    assert_eq!(error_code(&idle.ask("INSERT INTO mark VALUES ('other half')")), Some(1053));
    assert!(idle.is_closed());
    assert_eq!(pair.sql(1, "SELECT COUNT(*) FROM t.mark"), "1");
    assert_eq!(client(&front).value("SELECT name FROM mark FOR UPDATE"), "second");
}

#[test]
fn trap_65_an_old_source_gets_no_writes_from_connections_of_before() {
    let pair = Pair::shared();
    let front = front(pair.ports());
    for _ in 0..3 {
        let mut writer = client(&front);
        assert_eq!(writer.value("SELECT name FROM mark FOR UPDATE"), "first");
    }
    front.wait("a connection is pooled", |status| status.pooled >= 1);
    let mut idle = client(&front);
    assert_eq!(idle.value("SELECT name FROM mark FOR UPDATE"), "first");
    front.route(&routes(Some(HostId::Second), [true, false]));
    assert_eq!(idle.value("SELECT name FROM mark FOR UPDATE"), "second");
    for _ in 0..3 {
        let mut writer = client(&front);
        assert_eq!(writer.value("SELECT name FROM mark FOR UPDATE"), "second");
        assert_eq!(writer.value("SELECT name FROM mark"), "first", "now a replica");
    }
}

/// A listener whose queue is full drops what comes: connecting to it hangs, as to a dead host.
#[test]
fn trap_66_a_host_that_does_not_answer_delays_only_who_needs_it() {
    let pair = Pair::shared();
    let hole =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    hole.bind(&any.into()).expect("binds");
    hole.listen(0).expect("listens");
    let address = hole.local_addr().expect("bound").as_socket().expect("an address");
    let _queue: Vec<_> =
        (0..4).map(|_| TcpStream::connect_timeout(&address, Duration::from_millis(100))).collect();
    let front = Front::start([pair.ports()[0], address.port()], |config| {
        config.connect_limit = Duration::from_millis(1500);
    });
    front.wait("the source is known", |status| status.logins >= 1);
    // Without a database, because that would be looked for on the replica.
    let log_in = || Raw::log_in(front.address.port(), Hello { database: "", ..Hello::default() });
    let (mut writer, mut reader) = (log_in(), log_in());
    let since = Clock::now();
    reader.send_query(b"SELECT name FROM t.mark");
    for _ in 0..20 {
        assert_eq!(writer.value("SELECT name FROM t.mark FOR UPDATE"), "first");
    }
    assert!(since.elapsed() < Duration::from_millis(1000), "{:?}", since.elapsed());
    assert_eq!(value(&reader.results()), "first", "after the time limit of a connection");
    assert!(since.elapsed() > Duration::from_millis(1000), "{:?}", since.elapsed());
    let since = Clock::now();
    assert_eq!(reader.value("SELECT name FROM t.mark"), "first");
    assert!(since.elapsed() < Duration::from_millis(700), "it is left alone for a while");
}

#[test]
fn trap_67_without_any_source_reads_get_an_error_in_time_and_the_admin_port_answers() {
    let pair = Pair::shared();
    let limit = Duration::from_millis(600);
    let front = Front::start(pair.ports(), |config| {
        config.hold_limit = limit;
        config.admin_listen = vec![([127, 0, 0, 1], 0).into()];
        config.admin_password = Some(Secret::Text("pwd".into()));
    });
    front.wait("both servers are known", |status| status.logins >= 2);
    let mut reader = client(&front);
    front.route(&routes(None, [false, false]));
    let since = Clock::now();
    reader.send_query(b"SELECT name FROM mark");
    let port = front.admin.expect("an admin port").port();
    let desk = options(&front).user(Some("admin")).pass(Some("pwd")).tcp_port(port);
    let mut desk = Conn::new(desk).expect("logs in");
    let sessions: Vec<mysql::Row> = desk.query("SHOW SESSIONS").expect("lists");
    let is_held = |it: &mysql::Row| it.get::<String, _>("state").as_deref() == Some("held");
    assert!(sessions.iter().any(is_held), "{sessions:?}");
    assert_eq!(error_code(&reader.results()), Some(1205));
    assert!(since.elapsed() >= limit && since.elapsed() < limit * 5, "{:?}", since.elapsed());
    front.route(&routes(Some(HostId::First), [false, false]));
    assert_eq!(reader.value("SELECT name FROM mark"), "first", "the session goes on");
}

#[test]
fn trap_68_what_cannot_move_to_a_new_source_ends_its_session() {
    let pair = Pair::shared();
    let front = front(pair.ports());
    for texts in [
        &["CREATE TEMPORARY TABLE moved (a INT)"][..],
        &["SET @a = 1"],
        &["SELECT GET_LOCK('moved', 0)"],
        &["LOCK TABLES mark READ"],
        &["SET autocommit = 0", "SELECT * FROM mark"],
    ] {
        front.route(&routes(Some(HostId::First), [false, true]));
        let mut session = client(&front);
        for text in texts {
            assert_eq!(error_code(&session.ask(text)), None, "{text}");
        }
        front.route(&routes(Some(HostId::Second), [true, false]));
        assert_eq!(error_code(&session.ask("SELECT 1")), Some(1053), "{texts:?}");
        assert!(session.is_closed());
    }
}
