//! Traps 50 to 58 of facts/sql.md section 3: the protocol, packet by packet, on every kind of
//! server.
//!
//! In: pairs, raw clients. Out: laws. Must not: know how a pair is made (`servers`).

use super::laws::{Kind, Talk, Watched, on_each};
use super::middle::{Fault, Middle};
use super::raw::*;
use super::*;

/// Does the same to the splitter and to the server itself: every packet must be the same.
#[track_caller]
fn same<T: PartialEq + std::fmt::Debug>(
    watched: &Watched,
    [through, direct]: [&mut Raw; 2],
    what: &str,
    act: impl Fn(&mut Raw) -> T,
) -> T {
    let (answer, expected) = (act(through), act(direct));
    if answer != expected {
        let (one, other) = (format!("{answer:?}"), format!("{expected:?}"));
        let at = one.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
        let from = at.saturating_sub(200);
        let part = |text: &str| text.get(from..).map(|it| format!("{it:.500}"));
        panic!("{what} on {}: {:?}, not {:?}", watched.kind.name(), part(&one), part(&other));
    }
    answer
}

/// A client of the splitter and one of each server itself, in the same database.
fn both(watched: &Watched, front: &Front, flags: u32) -> (Raw, [Raw; 2]) {
    let hello = Hello { user: "law", database: "lawa", flags, ..Hello::default() };
    let direct = watched.pair.ports().map(|port| Raw::log_in(port, hello));
    (Raw::log_in(front.address.port(), hello), direct)
}

/// One signed number as the parameters of an execution, with its type or without.
fn long(number: i32, has_type: bool) -> Vec<u8> {
    let mut bytes = vec![0, u8::from(has_type)];
    if has_type {
        bytes.extend_from_slice(&[3, 0]);
    }
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes
}

#[test]
fn trap_50_users_that_are_nobody_or_missing_on_the_replica() {
    on_each(&Kind::ALL, |watched| {
        let front = watched.front(|_| {});
        for user in ["", "nobody", "app"] {
            let hello = Hello { user, database: "", ..Hello::default() };
            let refused = Raw::try_log_in(front.address.port(), hello).err().expect("is refused");
            assert_eq!(error_code(&[refused]), Some(1045), "{user:?}");
        }
        watched.pair.sql(1, "RENAME USER other@'127.0.0.1' TO missing@'127.0.0.1'");
        let mut client = Raw::log_in(front.address.port(), Hello::default());
        assert_eq!(client.value("SELECT name FROM mark"), "first", "{}", watched.kind.name());
        assert_eq!(client.value("SELECT name FROM mark"), "first");
        watched.pair.sql(1, "RENAME USER missing@'127.0.0.1' TO other@'127.0.0.1'");
        let mut client = Raw::log_in(front.address.port(), Hello::default());
        assert_eq!(client.value("SELECT name FROM mark"), "second", "{}", watched.kind.name());
    });
}

#[test]
fn trap_51_a_prepared_read_has_its_types_wherever_it_runs() {
    on_each(&Kind::ALL, |watched| {
        let front = watched.front(|_| {});
        let (mut through, [mut source, mut replica]) = both(watched, &front, MULTI_STATEMENTS);
        let text = b"SELECT name, ? + 1 FROM mark";
        for raw in [&mut through, &mut source, &mut replica] {
            assert_eq!(raw.prepare(text).expect("prepares").1, 1);
        }
        let run = |has_type| move |raw: &mut Raw| raw.execute(raw.statement, 0, &long(5, has_type));
        same(watched, [&mut through, &mut replica], "with its type", run(true));
        same(watched, [&mut through, &mut replica], "without", run(false));
        source.execute(source.statement, 0, &long(5, true));
        same(watched, [&mut through, &mut source], "begins", |raw| raw.ask("BEGIN"));
        same(watched, [&mut through, &mut source], "without, elsewhere", run(false));
        same(watched, [&mut through, &mut source], "commits", |raw| raw.ask("COMMIT"));
        same(watched, [&mut through, &mut replica], "back", run(false));
        let wrong = |raw: &mut Raw| error_code(&raw.execute(7777, 0, &long(5, true)));
        assert_eq!(same(watched, [&mut through, &mut source], "unknown", wrong), Some(1243));
    });
}

#[test]
fn trap_51_a_prepared_read_has_its_types_after_its_server_died() {
    let pair = Pair::own();
    let front = Front::start(pair.ports(), |config| config.read_own_writes = false);
    front.wait("both servers are known", |status| status.logins >= 2);
    let mut client = Raw::log_in(front.address.port(), Hello::default());
    let (id, _) = client.prepare(b"SELECT CONCAT(name, ?) FROM mark").expect("prepares");
    let answer = client.execute(id, 0, &long(5, true));
    assert!(answer.iter().any(|(_, it)| it.ends_with(b"second5")), "{answer:?}");
    pair.kill(1);
    let answer = client.execute(id, 0, &long(6, false));
    assert!(answer.iter().any(|(_, it)| it.ends_with(b"first6")), "{answer:?}");
}

#[test]
fn trap_52_long_data_resets_and_closes_answer_as_the_server_does() {
    on_each(&Kind::ALL, |watched| {
        let front = watched.front(|_| {});
        let (mut through, [mut source, _]) = both(watched, &front, MULTI_STATEMENTS);
        let act = |raw: &mut Raw| {
            let (id, _) = raw.prepare(b"SELECT LENGTH(?) FROM mark FOR UPDATE").expect("prepares");
            let head = [&b"\x18"[..], &id.to_le_bytes(), &[0, 0]].concat();
            raw.send(&[&head[..], b"abc"].concat());
            raw.send(&[&head[..], b"defg"].concat());
            // A blob, whose value is what was sent before.
            let first = raw.execute(id, 0, &[0, 1, 0xfc, 0]);
            raw.send(&[&b"\x1a"[..], &id.to_le_bytes()].concat());
            let reset = raw.packet();
            let second = raw.execute(id, 0, &[0, 1, 0xfc, 0, 2, b'h', b'i']);
            raw.send(&[&b"\x19"[..], &id.to_le_bytes()].concat());
            let gone = error_code(&raw.execute(id, 0, &[0, 1, 0xfc, 0, 0]));
            (first, reset, second, gone)
        };
        let told = same(watched, [&mut through, &mut source], "long data", act);
        assert!(told.0.iter().any(|(_, it)| it.get(2) == Some(&7)), "seven bytes: {told:?}");
        assert_eq!(told.3, Some(1243));
    });
}

/// A reset of what has no cursor and no long data needs no server, and no statement there.
#[test]
fn trap_52_a_statement_may_be_reset_wherever_it_is() {
    on_each(&Kind::ALL, |watched| {
        let front = watched.front(|_| {});
        let (mut through, [mut source, mut replica]) = both(watched, &front, MULTI_STATEMENTS);
        for raw in [&mut through, &mut source, &mut replica] {
            raw.prepare(b"SELECT name, ? FROM mark").expect("prepares");
        }
        let reset = |raw: &mut Raw| {
            raw.send(&[&b"\x1a"[..], &raw.statement.to_le_bytes()].concat());
            raw.packet()
        };
        same(watched, [&mut through, &mut replica], "resets", reset);
        same(watched, [&mut through, &mut replica], "runs", |raw| {
            raw.execute(raw.statement, 0, &long(1, true))
        });
        for text in ["SET NAMES latin1", "BEGIN"] {
            same(watched, [&mut through, &mut source], text, |raw| raw.ask(text));
            same(watched, [&mut through, &mut source], "resets", reset);
        }
    });
}

#[test]
fn trap_52_a_cursor_is_fetched_where_it_was_opened() {
    on_each(&Kind::ALL, |watched| {
        let is_old = watched.kind == Kind::MySql56;
        for flags in [0, DEPRECATE_EOF].into_iter().take(if is_old { 1 } else { 2 }) {
            let front = watched.front(|_| {});
            let (mut through, [mut source, _]) = both(watched, &front, flags | MULTI_STATEMENTS);
            let act = |raw: &mut Raw| {
                let (id, _) = raw.prepare(b"SELECT a, b FROM t ORDER BY a").expect("prepares");
                let opened = raw.execute(id, 1, b"");
                let mut parts = Vec::new();
                for rows in [1u32, 1, 10] {
                    raw.send(&[&b"\x1c"[..], &id.to_le_bytes(), &rows.to_le_bytes()].concat());
                    raw.rows(&mut parts);
                    parts.push((0, raw.value("SELECT 5").into_bytes()));
                }
                (opened, parts)
            };
            let told = same(watched, [&mut through, &mut source], "a cursor", act);
            assert_eq!(told.1.len(), 3 * 3, "three rows: {told:?}");
        }
    });
}

#[test]
fn trap_52_out_parameters_arrive() {
    on_each(&Kind::ALL, |watched| {
        watched.pair.sql(
            0,
            "USE lawa;\nDELIMITER $\nCREATE PROCEDURE po(OUT x INT, INOUT y INT) \
             BEGIN SELECT 1; SET x = 5; SET y = y + 1; END$\n",
        );
        let front = watched.front(|_| {});
        let act = |raw: &mut Raw| {
            let (id, count) = raw.prepare(b"CALL po(?, ?)").expect("prepares");
            assert_eq!(count, 2);
            let parameters = [0, 1, 3, 0, 3, 0, 1, 0, 0, 0, 41, 0, 0, 0];
            [raw.execute(id, 0, &parameters), raw.ask("SELECT 1")]
        };
        let is_old = watched.kind == Kind::MySql56;
        for flags in [0, DEPRECATE_EOF].into_iter().take(if is_old { 1 } else { 2 }) {
            let (mut through, [mut source, _]) = both(watched, &front, flags | MULTI_STATEMENTS);
            let told = same(watched, [&mut through, &mut source], "out parameters", act);
            assert!(told[0].iter().any(|(_, it)| it.ends_with(&[5, 0, 0, 0, 42, 0, 0, 0])));
        }
    });
}

#[test]
fn trap_53_rows_and_ends_are_told_apart() {
    on_each(&Kind::ALL, |watched| {
        let is_old = watched.kind == Kind::MySql56;
        for host in [0, 1] {
            watched.pair.sql(host, "SET GLOBAL max_allowed_packet = 64 * 1024 * 1024");
            watched.pair.sql(
                host,
                "USE lawa;\nDELIMITER $\nCREATE PROCEDURE p3() \
                 BEGIN SELECT 1; SELECT a, b FROM t; SELECT NULL; END$\n",
            );
        }
        let front = watched.front(|_| {});
        for flags in [0, DEPRECATE_EOF].into_iter().take(if is_old { 1 } else { 2 }) {
            let (mut through, [mut source, mut replica]) =
                both(watched, &front, flags | MULTI_STATEMENTS | FOUND_ROWS);
            for text in [
                "SELECT NULL, 1",
                "SELECT REPEAT('x', 17000000)",
                "SELECT REPEAT('x', 16777210), 'tail'",
                "SELECT REPEAT('x', 16777211)",
                "SELECT 'x', REPEAT('y', 33554430)",
                "SELECT a, b FROM t WHERE a > 100",
                "SELECT a, b FROM t UNION SELECT a + 10, b FROM t",
            ] {
                same(watched, [&mut through, &mut replica], text, |raw| raw.ask(text));
            }
            for text in [
                "UPDATE t SET b = b WHERE a = 1",
                "CALL p3()",
                "SELECT 1; DO 0; SELECT NULL",
                "SELECT 1; SELECT * FROM nosuch; SELECT 2",
                "SELECT x.a FROM t x, t y, t z, t u, t v, t w",
            ] {
                same(watched, [&mut through, &mut source], text, |raw| raw.ask(text));
            }
        }
    });
}

#[test]
fn trap_54_a_local_file_is_streamed_as_to_the_server_itself() {
    on_each(&Kind::ALL, |watched| {
        for host in [0, 1] {
            watched.pair.sql(host, "SET GLOBAL local_infile = 1");
        }
        let front = watched.front(|config| config.local_infile = true);
        let (mut through, [mut source, _]) = both(watched, &front, LOCAL_FILES | MULTI_STATEMENTS);
        let load = |raw: &mut Raw| {
            let asked = raw.ask("LOAD DATA LOCAL INFILE 'any' INTO TABLE log");
            assert_eq!(asked.last().map(|(_, it)| it[0]), Some(0xfb), "{asked:?}");
            raw.send_numbered(2, b"1\n2\n");
            raw.send_numbered(3, b"3\n");
            raw.send_numbered(4, b"");
            (asked, raw.results(), raw.ask("DELETE FROM log"))
        };
        same(watched, [&mut through, &mut source], "loads", load);
        let empty = |raw: &mut Raw| {
            raw.ask("LOAD DATA LOCAL INFILE 'any' INTO TABLE log");
            raw.send_numbered(2, b"");
            (raw.results(), raw.ask("SELECT 1 FROM log"))
        };
        same(watched, [&mut through, &mut source], "loads nothing", empty);
        let nowhere = |raw: &mut Raw| raw.ask("LOAD DATA LOCAL INFILE 'any' INTO TABLE nosuch");
        same(watched, [&mut through, &mut source], "an error before the data", nowhere);
        // A client that did not offer its files is never asked for one.
        let mut client = watched.log_in(front.address.port(), "lawa");
        let answer = client.ask("LOAD DATA LOCAL INFILE 'any' INTO TABLE log");
        assert!(error_code(&answer).is_some(), "{answer:?}");
    });
}

#[test]
fn trap_54_a_server_that_asks_for_a_file_unasked_gets_none() {
    let pair = Pair::shared();
    let [source, replica] = pair.ports();
    let theft = Fault::Say(b"\x0c\0\0\x01\xfb/etc/passwd");
    let (bad_source, bad_replica) =
        (Middle::start(source, b"'steal'", theft), Middle::start(replica, b"'steal'", theft));
    for local_infile in [false, true] {
        let front = Front::start([source, bad_replica.port], |config| {
            config.local_infile = local_infile;
        });
        front.wait("both servers are known", |status| status.logins >= 2);
        let flags = LOCAL_FILES | MULTI_STATEMENTS;
        let mut client = Raw::log_in(front.address.port(), Hello { flags, ..Hello::default() });
        assert_eq!(client.value("SELECT 'steal'"), "steal", "a read: the source is asked");
        let front = Front::start([bad_source.port, replica], |_| {});
        front.wait("both servers are known", |status| status.logins >= 2);
        let mut client = Raw::log_in(front.address.port(), Hello { flags, ..Hello::default() });
        let answer = client.ask("SELECT 'steal' FROM mark FOR UPDATE");
        assert_eq!(error_code(&answer), Some(1053), "{answer:?}");
        assert!(client.is_closed());
    }
}

#[test]
fn trap_55_what_is_sent_ahead_is_answered_in_order() {
    on_each(&Kind::ALL, |watched| {
        let front = watched.front(|_| {});
        let (mut through, [mut source, _]) = both(watched, &front, MULTI_STATEMENTS);
        let query = |text: &str| {
            let length = u8::try_from(text.len() + 1).unwrap();
            [&[length, 0, 0, 0, 3][..], text.as_bytes()].concat()
        };
        let ahead = [
            query("SELECT a FROM t LIMIT 2"),
            query("INSERT INTO log VALUES (7)"),
            query("SELECT a FROM log FOR UPDATE"),
            query("SELECT 'last'"),
        ]
        .concat();
        let act = |raw: &mut Raw| {
            raw.socket.write_all(&ahead).expect("sends");
            [raw.results(), raw.results(), raw.results(), raw.results()]
        };
        source.ask("BEGIN");
        let expected = act(&mut source);
        source.ask("ROLLBACK");
        let told = act(&mut through);
        assert_eq!(told.each_ref().map(|it| value(it)), expected.each_ref().map(|it| value(it)));
        if watched.kind == Kind::MariaDb {
            // MariaDB's connectors execute what they prepare in the same write.
            let (mut through, [_, mut replica]) = both(watched, &front, MULTI_STATEMENTS);
            let text = b"\x16SELECT name FROM mark";
            let execute = execution(u32::MAX, 0, b"");
            let act = |raw: &mut Raw| {
                let mut bytes = vec![u8::try_from(text.len()).unwrap(), 0, 0, 0];
                bytes.extend_from_slice(text);
                bytes.extend_from_slice(&[u8::try_from(execute.len()).unwrap(), 0, 0, 0]);
                bytes.extend_from_slice(&execute);
                raw.socket.write_all(&bytes).expect("sends");
                let mut prepared: Vec<_> = (0..3).map(|_| raw.packet()).collect();
                prepared[0].1[1..5].fill(0); // Its number is the session's own.
                (prepared, raw.results())
            };
            same(watched, [&mut through, &mut replica], "executes the last one", act);
        }
    });
}

#[test]
fn trap_55_a_client_may_leave_in_the_middle_of_a_result() {
    on_each(&Kind::ALL, |watched| {
        let front = watched.front(|_| {});
        let mut client = watched.log_in(front.address.port(), "lawa");
        client.send_query(
            b"SELECT REPEAT('x', 1000) FROM t a, t b, t c, t d, t e, t f, t g, t h, t i",
        );
        assert_eq!(client.packet().1, [1], "one column");
        client.send(b"\x01");
        drop(client);
        front.wait("the session ends", |status| status.sessions == 0);
        assert_eq!(front.status().pooled, 0, "its connection is not used again");
        let mut next = watched.log_in(front.address.port(), "lawa");
        assert_eq!(next.value("SELECT name FROM mark"), "second");
    });
}

#[test]
fn trap_55_commands_that_are_no_queries_answer_as_the_server_does() {
    on_each(&Kind::ALL, |watched| {
        let front = watched.front(|_| {});
        let (mut through, [mut source, mut replica]) = both(watched, &front, MULTI_STATEMENTS);
        let ping = |raw: &mut Raw| {
            raw.send(b"\x0e");
            raw.packet()
        };
        same(watched, [&mut through, &mut source], "pings", ping);
        let fields = |table: &'static [u8]| {
            move |raw: &mut Raw| {
                raw.send(&[b"\x04", table, b"\0%"].concat());
                let mut packets = Vec::new();
                raw.rows(&mut packets);
                packets
            }
        };
        same(watched, [&mut through, &mut replica], "lists fields", fields(b"t"));
        same(watched, [&mut through, &mut replica], "lists none", fields(b"nosuch"));
        let single = |payload: &'static [u8]| {
            move |raw: &mut Raw| {
                raw.send(payload);
                raw.packet()
            }
        };
        for text in ["BEGIN", "SET @a = 1"] {
            same(watched, [&mut through, &mut source], text, |raw| raw.ask(text));
            same(watched, [&mut through, &mut source], "pings", ping);
        }
        same(watched, [&mut through, &mut source], "off", single(b"\x1b\x01\0"));
        let ask = |raw: &mut Raw| raw.ask("SELECT 1; SELECT 2");
        assert_eq!(error_code(&same(watched, [&mut through, &mut source], "one", ask)), Some(1064));
        same(watched, [&mut through, &mut source], "on", single(b"\x1b\0\0"));
        assert_eq!(same(watched, [&mut through, &mut source], "two", ask).len(), 10);
        let (_, text) = single(b"\x09")(&mut through);
        assert!(text.starts_with(b"Uptime"), "{}", lossy(&text));
        for dump in [&b"\x12\x04\0\0\0\0\0\x01\0\0\0"[..], b"\x15\x01\0\0\0", b"\x1e\0\0"] {
            through.send(dump);
            assert_eq!(error_code(&[through.packet()]), Some(1227));
        }
        through.send(b"\x7f");
        assert_eq!(error_code(&[through.packet()]), Some(1047));
        assert_eq!(through.value("SELECT name FROM mark"), "first", "the session goes on");
    });
}

#[test]
fn trap_56_sequence_numbers_wrap_and_wrong_ones_are_refused() {
    on_each(&Kind::ALL, |watched| {
        let front = watched.front(|_| {});
        let (mut through, [_, mut replica]) = both(watched, &front, MULTI_STATEMENTS);
        let text = "SELECT x.a FROM t x, t y, t z, t u, t v, t w";
        let act = |raw: &mut Raw| raw.ask(text);
        let told = same(watched, [&mut through, &mut replica], "729 rows", act);
        assert!(told.iter().filter(|(number, _)| *number == 7).count() == 3, "wraps twice");
        through.send_numbered(5, b"\x03SELECT 1");
        assert_eq!(error_code(&[through.packet()]), Some(1156));
        assert!(through.is_closed());
        let mut client = Talk::new(watched, &front).through;
        for byte in [&b"\x16\0\0\0\x03"[..], b"SELECT name FROM mark"].concat() {
            client.socket.write_all(&[byte]).expect("sends");
        }
        assert_eq!(value(&client.results()), "second");
        client.socket.write_all(b"\x16\0\0\0\x03INSERT INTO lo").expect("sends");
        drop(client);
        front.wait("half a packet is nothing", |status| status.sessions == 0);
    });
}

#[test]
fn trap_58_slow_log_ins_and_idle_clients_are_closed() {
    let pair = Pair::shared();
    let limit = Duration::from_millis(700);
    let front = Front::start(pair.ports(), |config| config.idle_limit = limit);
    front.wait("both servers are known", |status| status.logins >= 2);
    let mut idle = Raw::log_in(front.address.port(), Hello::default());
    assert_eq!(idle.value("SELECT name FROM mark"), "second");
    // A byte now and then does not buy more time.
    let since = Clock::now();
    let mut slow = TcpStream::connect(front.address).expect("connects");
    slow.set_read_timeout(Some(Duration::from_millis(10))).expect("sets");
    let mut buffer = [0; 256];
    let mut is_greeted = false;
    loop {
        match slow.read(&mut buffer) {
            Ok(0) => break,
            Ok(_) => is_greeted = true,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
        assert!(since.elapsed() < Duration::from_secs(15), "it is still there");
        if slow.write_all(b"\x40").is_err() {
            break;
        }
        thread::sleep(Duration::from_millis(200));
    }
    assert!(is_greeted && since.elapsed() > Duration::from_secs(8), "{:?}", since.elapsed());
    assert!(idle.is_closed(), "long since");
    front.wait("nobody is left", |status| status.sessions == 0);
}

#[test]
fn trap_58_too_many_clients_get_1040_as_their_first_packet() {
    let pair = Pair::shared();
    let front = Front::start(pair.ports(), |config| config.sessions_max = 2);
    front.wait("both servers are known", |status| status.logins >= 2);
    let port = front.address.port();
    let (first, _second) = (Raw::log_in(port, Hello::default()), TcpStream::connect(front.address));
    let refused = Raw::try_log_in(port, Hello::default()).err().expect("is refused");
    assert_eq!((refused.0, error_code(&[refused])), (0, Some(1040)));
    drop(first);
    front.wait("a place is free", |status| status.sessions == 1);
    Raw::log_in(port, Hello::default());
}
