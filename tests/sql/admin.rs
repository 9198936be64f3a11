//! The admin port with the clients that people use, the address list, the blocklist.
//!
//! In: a pair and a splitter with an admin port. Out: laws. Must not: know how a pair is made.

use super::*;
use mysql::Row;
use tandem::sql::gate::Network;
use tandem::units::Secret;

pub(super) fn with_admin(config: &mut tandem::sql::Config) {
    config.read_own_writes = false;
    config.admin_listen = vec![([127, 0, 0, 1], 0).into()];
    config.admin_password = Some(Secret::Text("pwd".into()));
}

pub(super) fn front(pair: &Pair) -> Front {
    Front::start(pair.ports(), with_admin)
}

pub(super) fn desk_options(front: &Front) -> OptsBuilder {
    let port = front.admin.expect("an admin port").port();
    options(front).user(Some("admin")).pass(Some("pwd")).tcp_port(port)
}

#[test]
fn set_offline_holds_the_source_and_spares_the_replica() {
    let pair = Pair::shared();
    let front = front(&pair);
    let mut desk = Conn::new(desk_options(&front)).expect("logs in");
    let mut conn = connect(&front);
    let [first, second] = pair.ports();
    type Backend = (u32, String, String, String);
    let list: Vec<Backend> = desk.query("SELECT * FROM backends").expect("lists");
    let expected = |number, port: u16, state: &str, kind: &str| {
        (number, format!("127.0.0.1:{port}"), state.to_owned(), kind.to_owned())
    };
    assert_eq!(list, [expected(1, first, "up", "rw"), expected(2, second, "up", "ro")]);
    assert_eq!(mark(&mut conn), "second");
    let row: Option<Backend> = desk.query_first("set offline 2;").expect("masks");
    assert_eq!(row, Some(expected(2, second, "offline", "ro")));
    assert_eq!(mark(&mut conn), "first", "a replica that is offline gets no reads");
    desk.query_drop("SET ONLINE 2").expect("unmasks");
    assert_eq!(mark(&mut conn), "second");
    desk.query_drop("SET OFFLINE 1").expect("masks");
    let writer = thread::spawn(move || {
        conn.query_drop("CREATE TABLE IF NOT EXISTS t.masked (a INT)").expect("is held, then done");
    });
    front.wait("the write is held", |status| status.held == 1);
    let sessions: Vec<Row> = desk.query("SHOW SESSIONS").expect("lists");
    let is_held = |row: &Row| row.get::<String, _>("state").as_deref() == Some("held");
    assert!(sessions.iter().any(is_held), "{sessions:?}");
    // New routes of the control plane do not take the mask away.
    front.route(&routes(Some(HostId::First), [false, true]));
    assert_eq!(front.status().held, 1);
    assert_eq!(mark(&mut connect(&front)), "second", "reads go on");
    desk.query_drop("SET ONLINE 1").expect("unmasks");
    writer.join().expect("no panic");
    assert_eq!(code(desk.query_drop("SET OFFLINE 3")), 1105);
    assert_eq!(code(desk.query_drop("REMOVE BACKEND 3")), 1105);
}

#[test]
fn set_offline_gives_an_open_transaction_its_time_and_no_more() {
    let pair = Pair::shared();
    let front = Front::start(pair.ports(), |config| {
        with_admin(config);
        config.hold_limit = Duration::from_millis(1500);
    });
    let mut desk = Conn::new(desk_options(&front)).expect("logs in");
    pair.sql(0, "CREATE TABLE t.offline (a INT) ENGINE=InnoDB");
    let (mut quick, mut slow) = (connect(&front), connect(&front));
    for conn in [&mut quick, &mut slow] {
        conn.query_drop("BEGIN").expect("begins");
        conn.query_drop("INSERT INTO t.offline VALUES (1)").expect("inserts");
    }
    desk.query_drop("SET OFFLINE 1").expect("masks");
    quick.query_drop("COMMIT").expect("has its time");
    assert_eq!(code(quick.query_drop("INSERT INTO t.offline VALUES (2)")), 1205, "held, then told");
    front.wait("the other one is ended", |_| front.is_quiet());
    assert_eq!(code(slow.query_drop("COMMIT")), 1053);
    assert_eq!(pair.sql(0, "SELECT a FROM t.offline"), "1");
    desk.query_drop("SET ONLINE 1").expect("unmasks");
    quick.query_drop("INSERT INTO t.offline VALUES (3)").expect("flows");
}

#[test]
fn the_admin_port_lets_in_its_user_and_nobody_else() {
    let pair = Pair::shared();
    let front = front(&pair);
    for (user, password) in [("admin", "wrong"), ("app", PASSWORD), ("admin", "")] {
        let refused = Conn::new(desk_options(&front).user(Some(user)).pass(Some(password)));
        assert_eq!(code(refused.map(drop)), 1045, "{user}");
    }
    assert_eq!(code(Conn::new(options(&front).user(Some("admin")).pass(Some("pwd")))), 1045);
}

#[test]
fn an_address_that_is_not_listed_gets_1130() {
    let pair = Pair::shared();
    let network = |text: &str| Network::try_from(text.to_owned()).expect("a network");
    let front = Front::start(pair.ports(), |config| config.clients = vec![network("10.0.0.0/8")]);
    assert_eq!(code(Conn::new(options(&front)).map(drop)), 1130);
    let front = Front::start(pair.ports(), |config| config.clients = vec![network("127.0.0.1")]);
    assert_eq!(mark(&mut connect(&front)), "second");
}

#[test]
fn the_blocklist_is_an_option() {
    let pair = Pair::shared();
    let front = Front::start(pair.ports(), |config| config.blocklist = true);
    let mut conn = connect(&front);
    pair.sql(0, "CREATE TABLE t.blocked (a INT); INSERT INTO t.blocked VALUES (1), (2)");
    assert_eq!(code(conn.query_drop("/* x */ DELETE FROM t.blocked")), 1105);
    assert_eq!(code(conn.query_drop("SELECT SLEEP(1)")), 1105);
    assert_eq!(code(conn.prep("DELETE FROM t.blocked")), 1105);
    assert_eq!(pair.sql(0, "SELECT COUNT(*) FROM t.blocked"), "2");
    conn.query_drop("DELETE FROM t.blocked WHERE a = 1").expect("deletes");
    let free = Front::start(pair.ports(), |_| {});
    connect(&free).query_drop("DELETE FROM t.blocked").expect("deletes");
    assert_eq!(pair.sql(0, "SELECT COUNT(*) FROM t.blocked"), "0");
}

#[test]
fn unix_sockets_serve_on_both_legs() {
    let pair = Pair::own();
    let path = std::env::temp_dir().join(format!("tandem-front-{}", std::process::id()));
    let path = path.to_str().expect("a plain path").to_owned();
    // Left behind by a daemon that was killed.
    drop(std::os::unix::net::UnixListener::bind(&path).expect("binds"));
    pair.sql(0, &format!("CREATE USER app@localhost IDENTIFIED BY '{PASSWORD}'"));
    pair.sql(0, "GRANT ALL ON *.* TO app@localhost");
    let front = Front::start(pair.ports(), |config| {
        config.listen_socket = Some(path.clone());
        config.server_socket = Some(pair.socket(0));
    });
    let options = options(&front).prefer_socket(false).socket(Some(path.clone()));
    let mut conn = Conn::new(options).expect("logs in by the path");
    assert_eq!(mark(&mut conn), "second");
    assert_eq!(
        one(&mut conn, "SELECT CONCAT(name, CURRENT_USER()) FROM t.mark FOR UPDATE"),
        "firstapp@localhost"
    );
    assert_eq!(mark(&mut connect(&front)), "second");
    let _ = std::fs::remove_file(path);
}
