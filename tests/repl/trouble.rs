//! Laws of switchover and of trouble: writers, blockers, wrong passwords, purged logs, hung and
//! full servers.
//!
//! In: a pair of real servers. Out: laws. Must not: know how a pair is made (`pair`).

use super::*;

pub(super) fn switchover_loses_no_acknowledged_write(recipe: &'static Recipe) {
    let mut pair = Pair::new(recipe);
    pair.set_up();
    let limit = Duration::from_secs(3);
    let writer = Writer::start([&pair.a, &pair.b]);
    sleep(Duration::from_millis(500));
    for turn in 0..4 {
        let Pair { host_a, host_b, .. } = &mut pair;
        let (old, new) = if turn % 2 == 0 { (host_a, host_b) } else { (host_b, host_a) };
        // The lag is waited for while writes still flow: here until it took 20 ms.
        for _ in 0..100 {
            let (position, began) = (old.position(), Clock::now());
            new.job(Job::CatchUp { position, limit: limit * 3 }).expect("the replica catches up");
            if began.elapsed() < Duration::from_millis(20) {
                break;
            }
        }
        let began = Clock::now();
        let Ok(Outcome::Closed { position, .. }) =
            old.job(Job::Close { limit, ends_writers: true })
        else {
            panic!("the source closes");
        };
        let closed = began.elapsed();
        new.job(Job::CatchUp { position, limit }).expect("the replica catches up");
        let caught_up = began.elapsed();
        new.job(Job::Promote).expect("the replica is promoted");
        let opened = began.elapsed();
        let peer_position = Some(new.position());
        let followed = old.job(Job::Follow { peer_position });
        assert_eq!(followed, Ok(Outcome::Following { was_following: false }), "turn {turn}");
        println!(
            "{}: closed after {closed:?}, caught up {caught_up:?}, opened {opened:?}, {:?} in all",
            recipe.flavour,
            began.elapsed()
        );
        sleep(Duration::from_millis(300));
    }
    let (acknowledged, longest) = writer.finish();
    println!("{}: {} writes, longest gap {longest:?}", recipe.flavour, acknowledged.len());
    pair.catch_up_b();
    for server in [&pair.a, &pair.b] {
        let ids: Vec<u32> =
            server.connect(ADMIN).query("SELECT id FROM app.t ORDER BY id").expect("a read");
        assert_eq!(ids, acknowledged, "every acknowledged write, and no other");
    }
}

pub(super) fn close_ends_what_holds_the_server_open(recipe: &'static Recipe) {
    let mut pair = Pair::new(recipe);
    pair.set_up();
    write_rows(&pair.a, 0..3);
    let limit = Duration::from_secs(1);

    // An idle transaction does not hold it open, and is rolled back.
    let mut idle = pair.a.connect(APP);
    idle.query_drop("BEGIN").expect("a transaction");
    idle.query_drop("UPDATE app.t SET v='never' WHERE id=0").expect("a write");
    let mut reader = pair.a.connect(APP);
    let began = Clock::now();
    match pair.host_a.job(Job::Close { limit, ends_writers: true }) {
        Ok(Outcome::Closed { ended: 1, .. }) => {}
        other => panic!("it closes: {other:?}"),
    }
    assert!(began.elapsed() < limit, "an idle transaction is not waited for");
    assert!(idle.query_drop("COMMIT").is_err());
    reader.query_drop("SELECT 1").expect("a reader is left alone");
    assert_eq!(write_error(&pair.a), 1290);
    assert_eq!(pair.host_a.job(Job::Reopen), Ok(Outcome::Reopened { warnings: vec![] }));
    write_rows(&pair.a, 3..4);
    assert_eq!(pair.a.value("SELECT COUNT(*) FROM app.t WHERE v='never'"), "0");

    // A table lock, and a write that runs for a minute, do.
    for blocking in ["LOCK TABLES app.t WRITE", "UPDATE app.t SET v=SLEEP(60)"] {
        let mut blocker = pair.a.connect(APP);
        let waiting = thread::spawn(move || {
            let result = blocker.query_drop(blocking);
            sleep(Duration::from_secs(3));
            drop(blocker);
            result
        });
        sleep(Duration::from_millis(300));
        let began = Clock::now();
        match pair.host_a.job(Job::Close { limit, ends_writers: true }) {
            Ok(Outcome::Closed { ended, .. }) => assert!(ended >= 1, "{blocking}"),
            other => panic!("{blocking}: it closes: {other:?}"),
        }
        assert!(began.elapsed() < Duration::from_secs(4), "{blocking}: {:?}", began.elapsed());
        let _either_way = waiting.join().expect("the blocker ends");
        pair.host_a.job(Job::Reopen).expect("it opens again");
        write_rows(&pair.a, 100..101);
        pair.a.run("DELETE FROM app.t WHERE id=100");
    }
}

pub(super) fn events_move_with_the_source(recipe: &'static Recipe) {
    let mut pair = Pair::new(recipe);
    pair.set_up();
    pair.a
        .run("CREATE DEFINER='app'@'%' EVENT app.e ON SCHEDULE EVERY 1 HOUR DO DELETE FROM app.t");
    pair.a.run("SET GLOBAL event_scheduler=ON");
    pair.catch_up_b();
    let status = "SELECT STATUS FROM information_schema.EVENTS WHERE EVENT_NAME='e'";
    assert!(pair.b.value(status).ends_with("SIDE_DISABLED"));
    pair.host_a
        .job(Job::Close { limit: Duration::from_secs(1), ends_writers: true })
        .expect("A closes");
    assert_eq!(pair.a.value("SELECT @@GLOBAL.event_scheduler"), "OFF");
    pair.catch_up_b();
    pair.host_b.job(Job::Promote).expect("B is promoted");
    assert_eq!(pair.b.value(status), "ENABLED");
    assert_eq!(pair.b.value("SELECT @@GLOBAL.event_scheduler"), "ON");
    let definer = "SELECT DEFINER FROM information_schema.EVENTS WHERE EVENT_NAME='e'";
    assert_eq!(pair.b.value(definer), "app@%");
}

pub(super) fn a_wrong_replication_password_is_named(recipe: &'static Recipe) {
    let mut pair = Pair::new(recipe);
    pair.set_up();
    let account = "'rpl'@'127.0.0.1'";
    pair.a.run(&if recipe.flavour == "mysql97" {
        format!("ALTER USER {account} IDENTIFIED BY 'other'")
    } else {
        format!("SET PASSWORD FOR {account} = PASSWORD('other')")
    });
    pair.catch_up_b();
    // Forgotten and attached again, B has to log in.
    pair.host_b.job(Job::Promote).expect("B is promoted");
    pair.host_b.job(Job::Fence).expect("B is fenced");
    let began = Clock::now();
    match pair.host_b.job(Job::Follow { peer_position: None }) {
        Err(Failure::NotReplicating(reason)) => assert!(reason.contains("1045"), "{reason}"),
        other => panic!("must fail: {other:?}"),
    }
    assert!(began.elapsed() < Duration::from_secs(6));
}

pub(super) fn purge_first_binlog(server: &Server) {
    server.run("FLUSH BINARY LOGS");
    // MariaDB keeps a binlog that InnoDB may still need for a recovery, and says so in a warning.
    eventually("the first binlog is purged", || {
        server.run("PURGE BINARY LOGS TO 'binlog.000002'");
        let row: mysql::Row =
            server.connect(ADMIN).query_first("SHOW BINARY LOGS").expect("a list").expect("a row");
        row.get::<String, _>(0).is_some_and(|name| name == "binlog.000002")
    });
}

pub(super) fn a_source_that_purged_what_is_needed_is_named(recipe: &'static Recipe) {
    let mut pair = Pair::new(recipe);
    pair.host_a.job(Job::Promote).expect("A is promoted");
    pair.a.run("CREATE DATABASE app");
    purge_first_binlog(&pair.a);
    pair.a.run("CREATE TABLE app.t (id INT PRIMARY KEY, v VARCHAR(60)) ENGINE=InnoDB");
    pair.host_b.job(Job::Fence).expect("B is fenced");
    let peer_position = Some(pair.host_a.position());
    match pair.host_b.job(Job::Follow { peer_position }) {
        Err(Failure::NeedsCopy(reason)) => {
            assert!(reason.contains("1236") || reason.contains("13114"), "{reason}");
        }
        other => panic!("must fail: {other:?}"),
    }
}

pub(super) fn a_hung_server_is_unreachable_in_bounded_time(recipe: &'static Recipe) {
    let mut pair = Pair::new(recipe);
    assert_eq!(pair.host_a.observe().state, State::Up);
    pair.a.signal(Signal::SIGSTOP);
    for look in 0..4 {
        let began = Clock::now();
        let state = pair.host_a.observe().state;
        assert!(matches!(state, State::Unreachable(_)), "look {look}: {state:?}");
        assert!(began.elapsed() < Duration::from_secs(3), "look {look}: {:?}", began.elapsed());
    }
    let failed = pair.host_a.job(Job::Promote);
    assert!(matches!(failed, Err(Failure::Unreachable { .. })), "{failed:?}");
    pair.a.signal(Signal::SIGCONT);
    eventually("it is seen again", || pair.host_a.observe().state == State::Up);

    pair.a.crash();
    let state = pair.host_a.observe().state;
    assert!(matches!(state, State::Unreachable(_)), "{state:?}");
    pair.a.start(&[]);
    eventually("it is seen again", || pair.host_a.observe().state == State::Up);
}

/// Forwards connections to `target`; once `allowance` is set, lets only so many more bytes back.
pub(super) fn throttle(target: std::net::SocketAddr, allowance: Arc<AtomicI64>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    thread::spawn(move || {
        while let Ok((mut client, _)) = listener.accept() {
            let Ok(mut server) = TcpStream::connect(target) else { continue };
            let mut to_server = server.try_clone().expect("a second handle");
            let mut from_client = client.try_clone().expect("a second handle");
            thread::spawn(move || std::io::copy(&mut from_client, &mut to_server));
            let allowance = allowance.clone();
            thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(count @ 1..) = server.read(&mut buffer) {
                    let size = i64::try_from(count).expect("small");
                    if allowance.fetch_sub(size, Ordering::SeqCst) < size {
                        // The link is dead, and nobody is told, until the source's end closes.
                        while let Ok(1..) = server.read(&mut buffer) {}
                        let _gone_already = client.shutdown(std::net::Shutdown::Both);
                        return;
                    }
                    if client.write_all(&buffer[..count]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

pub(super) fn promotion_drops_half_a_transaction_in_bounded_time(recipe: &'static Recipe) {
    let mut pair = Pair::new(recipe);
    pair.set_up();
    pair.a.run("CREATE TABLE app.big (id INT PRIMARY KEY, v LONGTEXT) ENGINE=InnoDB");
    write_rows(&pair.a, 0..5);
    pair.catch_up_b();
    let allowance = Arc::new(AtomicI64::new(i64::MAX));
    let port = throttle(pair.a.address, allowance.clone());
    let new_words = recipe.flavour == "mysql97";
    pair.b.run(if new_words { "STOP REPLICA" } else { "STOP SLAVE" });
    pair.b.run(&if new_words {
        format!("CHANGE REPLICATION SOURCE TO SOURCE_PORT={port}")
    } else {
        format!("CHANGE MASTER TO MASTER_PORT={port}")
    });
    pair.b.run(if new_words { "START REPLICA" } else { "START SLAVE" });
    eventually("B replicates by the detour", || {
        pair.host_b.observe().replica.is_some_and(|replica| replica.io == ThreadState::Running)
    });
    write_rows(&pair.a, 5..10);
    pair.catch_up_b();

    allowance.store(1_000_000, Ordering::SeqCst);
    let mut conn = pair.a.connect(APP);
    conn.query_drop("BEGIN").expect("a transaction");
    for id in 0..300 {
        let sql = format!("INSERT INTO app.big VALUES ({id}, REPEAT('x', 10000))");
        conn.query_drop(sql).expect("a write");
    }
    conn.query_drop("COMMIT").expect("acknowledged by A alone");
    eventually("the link dies", || allowance.load(Ordering::SeqCst) < 0);
    sleep(Duration::from_millis(300));
    pair.a.crash();
    let began = Clock::now();
    let promoted = pair.host_b.job(Job::Promote);
    let took = began.elapsed();
    println!("{}: promotion over half a transaction took {took:?}", recipe.flavour);
    let Ok(Outcome::Promoted { warnings, .. }) = promoted else {
        panic!("B is promoted: {promoted:?}");
    };
    assert!(took < Duration::from_secs(4), "{took:?}, {warnings:?}");
    assert_eq!(pair.b.value("SELECT COUNT(*) FROM app.big"), "0");
    assert_eq!(rows(&pair.b), 10);
    write_rows(&pair.b, 10..11);
}

pub(super) fn fencing_a_server_with_a_full_disk_ends_in_bounded_time(recipe: &'static Recipe) {
    let mut pair = Pair::on_small_disks(recipe);
    pair.host_a.job(Job::Promote).expect("A is promoted");
    pair.a.run("CREATE DATABASE app");
    pair.a.run("CREATE TABLE app.t (id INT PRIMARY KEY, v LONGTEXT) ENGINE=InnoDB");
    let mut conn = pair.a.connect(APP);
    let last_write = Arc::new(AtomicI64::new(0));
    let count = last_write.clone();
    let writer = thread::spawn(move || {
        for id in 0..1000 {
            let sql = format!("INSERT INTO app.t VALUES ({id}, REPEAT('x', 100000))");
            if conn.query_drop(sql).is_err() {
                return;
            }
            count.store(id, Ordering::Relaxed);
        }
        panic!("the disk is not full");
    });
    let mut seen = -1;
    eventually("the disk is full", || {
        sleep(Duration::from_millis(500));
        std::mem::replace(&mut seen, last_write.load(Ordering::Relaxed)) == seen && seen > 0
    });
    assert_eq!(pair.host_a.observe().state, State::Up, "looking still works");
    let began = Clock::now();
    let fenced = pair.host_a.job(Job::Fence);
    println!("{}: full disk, fenced after {:?}: {fenced:?}", recipe.flavour, began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(8));
    // MariaDB lets the stuck write be ended and closes. MySQL 5.6 does not: only its end is a
    // fence. MySQL 9.7 brings that about itself (binlog_error_action) when the write is ended.
    assert!(matches!(
        fenced,
        Ok(Outcome::Fenced { .. }) | Err(Failure::Blocked { .. } | Failure::Unreachable { .. })
    ));
    pair.a.crash();
    writer.join().expect("the writer ends with its server");
}

pub(super) fn a_query_is_given_up_at_its_limit(recipe: &'static Recipe) {
    let pair = Pair::new(recipe);
    let hands = LocalServer::new(pair.a.address, ADMIN.0, ADMIN.1);
    let ask = |sql: &str, limit: u64| {
        async_io::block_on(hands.query(sql.to_owned(), Duration::from_millis(limit)))
    };
    let began = Clock::now();
    for _ in 0..10 {
        assert_eq!(ask("SELECT SLEEP(20)", 200), Err(ServerError::TimedOut));
        // The next one is not held up, nor are threads used up.
        let rows = ask("SELECT 'it''s' AS a, NULL AS b", 1000).expect("a connection of its own");
        assert_eq!((rows.value(0, &["A"]), rows.value(0, &["b"])), (Some("it's"), None));
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());

    // Whoever goes before the answer leaves nothing behind, and the executor is never blocked.
    for _ in 0..10 {
        async_io::block_on(smol::future::or(
            async {
                let _unanswered = hands.query("SELECT SLEEP(20)".into(), Duration::from_secs(30));
                drop(_unanswered.await);
            },
            async {
                async_io::Timer::after(Duration::from_millis(50)).await;
            },
        ));
        ask("SELECT 1", 1000).expect("a connection of its own");
    }
    match ask("SELEC 1", 1000) {
        Err(ServerError::Refused { code: 1064, .. }) => {}
        other => panic!("a syntax error: {other:?}"),
    }
    let connections = pair.a.value("SELECT COUNT(*) FROM information_schema.PROCESSLIST");
    println!("{}: {connections} connections remain", recipe.flavour);
}

pub(super) fn a_server_that_denies_us_is_not_dead(recipe: &'static Recipe) {
    let mut pair = Pair::new(recipe);
    assert_eq!(pair.host_a.observe().state, State::Up);
    let account = format!("'{}'@'%'", ADMIN.0);
    let mut admin = pair.a.connect(ADMIN);
    admin
        .query_drop(if recipe.flavour == "mysql97" {
            format!("ALTER USER {account} IDENTIFIED BY 'other'")
        } else {
            format!("SET PASSWORD FOR {account} = PASSWORD('other')")
        })
        .expect("an administrator");
    pair.host_a.restart();
    let state = pair.host_a.observe().state;
    assert!(matches!(&state, State::Denied(reason) if reason.contains("1045")), "{state:?}");
}

pub(super) fn fencing_a_source_ends_its_applications(recipe: &'static Recipe) {
    let mut pair = Pair::new(recipe);
    pair.set_up();
    let mut application = pair.a.connect(APP);
    let fenced = pair.host_a.job(Job::Fence);
    assert!(matches!(fenced, Ok(Outcome::Fenced { ended: 1, .. })), "{fenced:?}");
    assert!(application.query_drop("SELECT 1").is_err());
    assert_eq!(write_error(&pair.a), 1290);
    let seen = pair.host_b.observe().replica.expect("B is a replica");
    assert_eq!(seen.io, ThreadState::Running, "its connection is left alone");
    // A source that was fenced by its own daemon's restart goes on.
    pair.host_a.job(Job::Promote).expect("A is promoted");
    write_rows(&pair.a, 0..1);
    pair.catch_up_b();
    assert_eq!(rows(&pair.b), 1);
}
