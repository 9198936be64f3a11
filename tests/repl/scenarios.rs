//! Laws of facts/repl.md section 5 that one engine, or two, can show on a pair of real servers.
//!
//! In: a pair of real servers. Out: laws, each with its scenario's number; `scenarios.txt` has all.
//! Must not: know how a pair is made (`pair`).

use tandem::repl::Position;
use tandem::repl::plan::{Ending, Step, Switchover, Whom};

use super::pair::Host;
use super::*;

/// SLAVE or REPLICA, MASTER or SOURCE, and how a source is changed.
struct Words {
    replica: &'static str,
    source: &'static str,
    change: &'static str,
}

fn words(recipe: &Recipe) -> Words {
    match recipe.flavour {
        "mysql97" => {
            Words { replica: "REPLICA", source: "SOURCE", change: "CHANGE REPLICATION SOURCE TO" }
        }
        _ => Words { replica: "SLAVE", source: "MASTER", change: "CHANGE MASTER TO" },
    }
}

const LIMIT: Duration = Duration::from_secs(10);

/// The exchange of roles as whoever orders it carries it out; `None` when it died on the way,
/// after so many queries of both daemons together.
struct Exchange<'a> {
    hosts: [&'a mut Host; 2],
    dies_after: Option<usize>,
}

impl Exchange<'_> {
    fn job(&mut self, whom: Whom, job: Job) -> Option<Result<Outcome, Failure>> {
        let asked: usize = self.hosts.iter().map(|host| host.queries).sum();
        let host = match whom {
            Whom::Source => &mut self.hosts[0],
            Whom::Replica => &mut self.hosts[1],
        };
        host.dies_after = self.dies_after.map(|limit| host.queries + limit.saturating_sub(asked));
        host.try_job(job)
    }

    /// Begins with what is found, as mysqlrpladmin does.
    fn run(&mut self) -> Option<Ending> {
        let [old, new] = &mut self.hosts;
        (old.dies_after, new.dies_after) = (None, None);
        let (of_old, of_new) = (old.observe(), new.observe());
        (old.queries, new.queries) = (0, 0);
        let position = of_old.position.expect("it is up");
        let follow = |position: &Option<String>| Job::Follow { peer_position: position.clone() };
        if of_old.replica.is_some() {
            let followed = self.job(Whom::Source, follow(&of_new.position))?;
            assert!(followed.is_ok(), "the old source follows: {followed:?}");
            return Some(Ending::Switched { warnings: vec![], ended: 0 });
        }
        let is_running = |thread: &ThreadState| *thread == ThreadState::Running;
        if of_new.replica.is_some_and(|it| !is_running(&it.io) || !is_running(&it.sql)) {
            let followed = self.job(Whom::Replica, follow(&Some(position.clone())))?;
            assert!(followed.is_ok(), "the replica follows again: {followed:?}");
        }
        let flavour = of_old.flavour.expect("it is up");
        let mut plan = Switchover::new(flavour, position, LIMIT, LIMIT, true, true);
        loop {
            match plan.next() {
                Step::Over(ending) => return Some(ending),
                Step::Run { whom, job, .. } => plan.ended(self.job(whom, job)?),
            }
        }
    }
}

fn is_open(server: &Server) -> bool {
    server.value("SELECT @@GLOBAL.read_only") == "0"
}

/// Scenario 40: killed after each query of a switchover, it leaves one open server at most, and
/// the next one, with nothing but what it finds, comes to the same end.
pub(super) fn an_exchange_killed_after_any_query_is_finished_by_the_next(recipe: &'static Recipe) {
    let mut pair = Pair::new(recipe);
    pair.set_up();
    let mut nobody = 0;
    for deaths in 0.. {
        let is_turned = deaths % 2 == 1;
        let id = u32::try_from(deaths).expect("few");
        write_rows(if is_turned { &pair.b } else { &pair.a }, id * 3..id * 3 + 3);
        let Pair { a, b, host_a, host_b } = &mut pair;
        let hosts = if is_turned { [host_b, host_a] } else { [host_a, host_b] };
        let mut exchange = Exchange { hosts, dies_after: Some(deaths) };
        let first = exchange.run();
        let open = [&*a, &*b].map(is_open);
        assert_ne!(open, [true, true], "two writers after {deaths} queries");
        nobody += usize::from(open == [false, false]);
        exchange.hosts.iter_mut().for_each(|host| host.restart());
        exchange.dies_after = None;
        if first.is_none() {
            let second = exchange.run();
            let is_switched = matches!(second, Some(Ending::Switched { .. }));
            assert!(is_switched, "after {deaths} queries: {second:?}");
        }
        assert_eq!([&*a, &*b].map(is_open), [is_turned, !is_turned], "after {deaths} queries");
        if let Some(ending) = first {
            assert!(matches!(ending, Ending::Switched { .. }), "{ending:?}");
            println!("{}: {deaths} queries, {nobody} times nobody wrote", recipe.flavour);
            assert!(deaths > 30 && nobody > 5, "it ended by itself after {deaths} queries");
            break;
        }
    }
    let counts = || [rows(&pair.a), rows(&pair.b)];
    eventually("both have every row", || counts()[0] == counts()[1]);
    let ids = "SELECT COUNT(*) = MAX(id) + 1 FROM app.t";
    assert_eq!([pair.a.value(ids), pair.b.value(ids)], ["1", "1"], "no row is lost");
}

/// Scenario 13: what a delay holds back is neither waited for nor thrown away.
pub(super) fn a_delayed_replica_is_refused_by_name(recipe: &'static Recipe) {
    let mut pair = Pair::new(recipe);
    pair.set_up();
    let Words { replica, source, change } = words(recipe);
    pair.b.run(&format!("STOP {replica}"));
    pair.b.run(&format!("{change} {source}_DELAY=60"));
    pair.b.run(&format!("START {replica}"));
    write_rows(&pair.a, 0..5);
    wait_until_received(&mut pair);
    let position = pair.host_a.position();
    let began = Clock::now();
    match pair.host_b.job(Job::CatchUp { position, limit: LIMIT }) {
        Err(Failure::NotCaughtUp { reason, left: 5 }) => {
            assert!(reason.contains("delay of 60 seconds"), "{reason}");
        }
        other => panic!("it must be refused: {other:?}"),
    }
    pair.a.crash();
    match pair.host_b.job(Job::Promote) {
        Err(Failure::Delayed { seconds: 60, left: 5 }) => {}
        other => panic!("it must be refused: {other:?}"),
    }
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    let seen = pair.host_b.observe().replica.expect("it is a replica still");
    assert_ne!(seen.io, ThreadState::Stopped, "nothing was changed");
    // With nothing left to wait for, a delay is no obstacle.
    pair.a.start(&[]);
    pair.b.run(&format!("STOP {replica}"));
    pair.b.run(&format!("{change} {source}_DELAY=0"));
    pair.b.run(&format!("START {replica}"));
    pair.catch_up_b();
    pair.b.run(&format!("STOP {replica}"));
    pair.b.run(&format!("{change} {source}_DELAY=60"));
    pair.b.run(&format!("START {replica}"));
    pair.host_b.job(Job::Promote).expect("B is promoted");
    assert_eq!(rows(&pair.b), 5);
}

/// Scenario 6: a server that has no connection left for us is not dead.
pub(super) fn a_server_without_a_free_connection_is_not_dead(recipe: &'static Recipe) {
    let mut pair = Pair::new(recipe);
    pair.host_a.job(Job::Promote).expect("A is promoted");
    pair.a.run("SET GLOBAL max_connections=10");
    // The last one is for an administrator, as these are. A daemon that starts has none yet.
    let mut taken: Vec<mysql::Conn> = Vec::new();
    eventually("it is denied, and not dead", || {
        pair.host_a.restart();
        taken.extend(std::iter::from_fn(|| pair.a.try_connect(ADMIN)));
        let state = pair.host_a.observe().state;
        assert!(!matches!(state, State::Unreachable(_)), "{state:?}");
        matches!(state, State::Denied(reason) if reason.contains("1040"))
    });
    drop(taken);
    eventually("it is seen again", || pair.host_a.observe().state == State::Up);
}

/// Scenario 57: nobody is told that a write succeeded which waits for the replica at a fencing.
pub(super) fn a_write_that_waits_for_the_replica_is_not_acknowledged_by_a_fence(
    recipe: &'static Recipe,
) {
    let Some(mut pair) = pair_whose_commits_wait(recipe) else { return };
    let mut conn = pair.a.connect(APP);
    let writer = thread::spawn(move || conn.query_drop("INSERT INTO app.t VALUES (1, 'waits')"));
    eventually("a commit waits", || pair.host_a.observe().semi_sync.waiting == 1);
    let began = Clock::now();
    let fenced = pair.host_a.job(Job::Fence);
    println!("{}: fenced in {:?}: {fenced:?}", recipe.flavour, began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    // Where ending the wait does not help, the end of the process is the fence.
    if fenced.is_err() {
        pair.a.crash();
    }
    writer.join().expect("the writer ends").expect_err("B does not have it");
    pair.b.signal(Signal::SIGCONT);
}

/// Scenario 57 too, where an administrator stops the source: a MySQL then tells whoever waits that
/// it is done, a MariaDB does not. `node::backing` knows.
pub(super) fn writes_that_wait_for_the_replica_are_acknowledged_by_a_mysql_that_is_stopped(
    recipe: &'static Recipe,
) {
    let Some(mut pair) = pair_whose_commits_wait(recipe) else { return };
    let writers: Vec<_> = (0..8)
        .map(|id| {
            let mut conn = pair.a.connect(APP);
            let sql = format!("INSERT INTO app.t VALUES ({id}, 'waits')");
            thread::spawn(move || conn.query_drop(sql))
        })
        .collect();
    eventually("a commit waits", || pair.host_a.observe().semi_sync.waiting > 0);
    sleep(Duration::from_millis(500));
    let began = Clock::now();
    let has_ended = pair.a.stop(Duration::from_secs(20));
    println!("{}: ended {has_ended} after {:?}", recipe.flavour, began.elapsed());
    pair.a.crash();
    let told = writers.into_iter().map(|writer| writer.join().expect("the writer ends"));
    let acknowledged = told.filter(Result::is_ok).count();
    println!("{}: {acknowledged} of 8 were acknowledged", recipe.flavour);
    assert_eq!(acknowledged > 0, recipe.flavour == "mysql97", "B has none of them");
    pair.b.signal(Signal::SIGCONT);
}

/// Scenario 9: a relay log of 100 MB is applied, and how far it is, is said.
pub(super) fn a_long_relay_log_is_drained_with_progress(recipe: &'static Recipe) {
    let mut pair = Pair::new(recipe);
    pair.set_up();
    pair.a.run("CREATE TABLE app.big (id INT PRIMARY KEY, v LONGTEXT) ENGINE=InnoDB");
    pair.catch_up_b();
    let mut lock = pair.b.connect(ADMIN);
    lock.query_drop("LOCK TABLES app.big READ").expect("a lock");
    let mut conn = pair.a.connect(APP);
    for id in 0..100 {
        conn.query_drop(format!("INSERT INTO app.big VALUES ({id}, REPEAT('x', 1000000))"))
            .expect("a write");
    }
    wait_until_received(&mut pair);
    pair.a.crash();
    let released = thread::spawn(move || {
        sleep(Duration::from_millis(500));
        drop(lock);
    });
    let began = Clock::now();
    pair.host_b.job(Job::Promote).expect("B is promoted");
    released.join().expect("the lock is released");
    let said = &pair.host_b.progress;
    println!("{}: 100 MB drained in {:?}: {said:?}", recipe.flavour, began.elapsed());
    assert!(said.iter().any(|line| line.contains("100 of 100 transactions left")), "{said:?}");
    assert_eq!(pair.b.value("SELECT COUNT(*) FROM app.big"), "100");
}

/// Scenarios 30, 31, 58: the old source comes back open, is attached by an operator, gives up.
pub(super) fn a_host_is_taken_as_it_comes_back(recipe: &'static Recipe) {
    let mut pair = Pair::new(recipe);
    pair.set_up();
    write_rows(&pair.a, 0..3);
    pair.catch_up_b();
    pair.a.crash();
    pair.host_b.job(Job::Promote).expect("B is promoted");
    write_rows(&pair.b, 3..6);
    pair.a.start(&["--read-only=0"]);
    pair.host_a.restart();
    let began = Clock::now();
    pair.host_a.job(Job::Fence).expect("A is fenced");
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(write_error(&pair.a), 1290);

    let Words { replica, source, change } = words(recipe);
    let password = REPLICATION_PASSWORD.replace('\\', "\\\\").replace('\'', "\\'");
    let (by_gtid, tries) = match recipe.flavour {
        "mariadb" => ("MASTER_USE_GTID=slave_pos", ""),
        "mysql56" => ("MASTER_AUTO_POSITION=1", ", MASTER_RETRY_COUNT=2"),
        _ => ("SOURCE_AUTO_POSITION=1, GET_SOURCE_PUBLIC_KEY=1", ", SOURCE_RETRY_COUNT=2"),
    };
    if recipe.flavour == "mariadb" {
        pair.a.run("SET GLOBAL gtid_slave_pos=@@GLOBAL.gtid_binlog_pos");
    }
    let port = pair.b.address.port();
    pair.a.run(&format!(
        "{change} {source}_HOST='127.0.0.2', {source}_PORT={port}, {source}_USER='rpl', \
         {source}_PASSWORD='{password}', {source}_CONNECT_RETRY=1, {by_gtid}{tries}"
    ));
    pair.a.run(&format!("START {replica}"));
    eventually("A has B's rows", || rows(&pair.a) == 6);
    let position = pair.host_b.position();
    let followed = pair.host_a.job(Job::Follow { peer_position: Some(position.clone()) });
    assert_eq!(followed, Ok(Outcome::Following { was_following: true }), "it is recognised");
    if tries.is_empty() {
        return; // MariaDB tries 100,000 times.
    }
    pair.b.crash();
    eventually("A gives up", || {
        pair.host_a.observe().replica.is_some_and(|it| it.io == ThreadState::Stopped)
    });
    pair.b.start(&[]);
    let followed = pair.host_a.job(Job::Follow { peer_position: Some(position) });
    assert_eq!(followed, Ok(Outcome::Following { was_following: false }), "it is started again");
}

/// A MariaDB that is strict about numbers, with its replica's half on, takes back what it wrote.
fn takes_its_own_back(pair: &mut Pair, position: &str) {
    pair.a.run("SET GLOBAL gtid_strict_mode=1");
    let peer_position = Some(position.to_owned());
    let followed = pair.host_a.job(Job::Follow { peer_position });
    assert_eq!(followed, Ok(Outcome::Following { was_following: false }));
    let position = position.to_owned();
    pair.host_a.job(Job::CatchUp { position, limit: LIMIT }).expect("A catches up");
    assert_eq!(rows(&pair.a), 12, "it has everything");
}

/// Scenarios 27 and 29: a replica skips what bears its own number, so that a source that lost a
/// part of what it wrote, or all of it, would never get it back from its replica.
pub(super) fn a_source_that_lost_what_it_wrote_is_not_attached(recipe: &'static Recipe) {
    let mut pair = Pair::new(recipe);
    pair.set_up();
    write_rows(&pair.a, 0..5);
    pair.catch_up_b();
    pair.a.crash();
    pair.a.keep_data();
    pair.a.start(&[]);
    write_rows(&pair.a, 5..10);
    pair.catch_up_b();
    pair.a.crash();
    pair.host_b.job(Job::Promote).expect("B is promoted");
    write_rows(&pair.b, 10..12);

    pair.a.put_data_back();
    pair.a.start(&[]);
    pair.host_a.restart();
    pair.host_a.job(Job::Fence).expect("A is fenced");
    let is_mariadb = recipe.flavour == "mariadb";
    if is_mariadb {
        pair.a.run("SET GLOBAL gtid_strict_mode=0");
    }
    let position = pair.host_b.position();
    let peer_position = Some(position.clone());
    match pair.host_a.job(Job::Follow { peer_position: peer_position.clone() }) {
        Err(Failure::Refused(why)) => assert!(why.contains("are lost here"), "{why}"),
        other => panic!("it must be refused: {other:?}"),
    }
    assert_eq!(pair.host_a.observe().replica, None, "it is not attached");
    if is_mariadb {
        takes_its_own_back(&mut pair, &position);
    }

    pair.a.crash();
    pair.a.empty();
    pair.a.start(&["--init-file=../first.sql"]);
    pair.host_a.restart();
    pair.host_a.job(Job::Fence).expect("A is fenced");
    if is_mariadb {
        pair.a.run("SET GLOBAL gtid_strict_mode=0");
    }
    for attempt in 0..2 {
        match pair.host_a.job(Job::Follow { peer_position: peer_position.clone() }) {
            Err(Failure::Refused(why) | Failure::NotReplicating(why)) => {
                assert!(why.contains("are lost here"), "attempt {attempt}: {why}");
            }
            other => panic!("attempt {attempt}: it must be refused: {other:?}"),
        }
    }
    assert!(pair.host_a.observe().is_read_only, "it takes no writes");
    if is_mariadb {
        takes_its_own_back(&mut pair, &position);
    }
}

/// Scenario 65: several domains, and nobody strict about their numbers.
pub(super) fn several_domains_move_with_the_source(recipe: &'static Recipe) {
    if recipe.flavour != "mariadb" {
        return;
    }
    let mut pair = Pair::new(recipe);
    for server in [&pair.a, &pair.b] {
        server.run("SET GLOBAL gtid_strict_mode=0");
    }
    pair.set_up();
    let write = |server: &Server, domain: u32, id: u32| {
        let mut conn = server.connect(ADMIN);
        conn.query_drop(format!("SET SESSION gtid_domain_id={domain}")).expect("a setting");
        conn.query_drop(format!("INSERT INTO app.t VALUES ({id}, 'x')")).expect("a write");
    };
    for id in 0..9 {
        write(&pair.a, id % 3, id);
    }
    let Pair { host_a, host_b, .. } = &mut pair;
    let there = Exchange { hosts: [host_a, host_b], dies_after: None }.run();
    assert!(matches!(there, Some(Ending::Switched { .. })), "{there:?}");
    for id in 9..15 {
        write(&pair.b, id % 2, id);
    }
    let Pair { host_a, host_b, .. } = &mut pair;
    let back = Exchange { hosts: [host_b, host_a], dies_after: None }.run();
    assert!(matches!(back, Some(Ending::Switched { .. })), "{back:?}");
    pair.catch_up_b();
    assert_eq!((rows(&pair.a), rows(&pair.b)), (15, 15));
    // One in a domain that A never wrote in, with a number that says nothing.
    pair.b.run("STOP SLAVE");
    write(&pair.b, 7, 100);
    let peer_position = Some(pair.host_a.position());
    match pair.host_b.job(Job::Follow { peer_position }) {
        Err(Failure::Diverged { extra, transactions: 1, .. }) => assert_eq!(extra, "7-2-1"),
        other => panic!("it must be refused: {other:?}"),
    }
}

/// Scenario 63: tags are part of what a transaction is called.
pub(super) fn tagged_transactions_are_told_from_others(recipe: &'static Recipe) {
    if recipe.flavour != "mysql97" {
        return;
    }
    let mut pair = Pair::new(recipe);
    pair.set_up();
    let write = |server: &Server, tag: &str, id: u32| {
        let mut conn = server.connect(ADMIN);
        conn.query_drop(format!("SET SESSION gtid_next='AUTOMATIC:{tag}'")).expect("a tag");
        conn.query_drop(format!("INSERT INTO app.t VALUES ({id}, 'x')")).expect("a write");
    };
    write(&pair.a, "batch", 0);
    write(&pair.a, "web", 1);
    write_rows(&pair.a, 2..4);
    let Pair { host_a, host_b, .. } = &mut pair;
    let there = Exchange { hosts: [host_a, host_b], dies_after: None }.run();
    assert!(matches!(there, Some(Ending::Switched { .. })), "{there:?}");
    write(&pair.b, "batch", 4);
    let position = pair.host_b.position();
    pair.host_a.job(Job::CatchUp { position, limit: LIMIT }).expect("A catches up");
    assert_eq!((rows(&pair.a), rows(&pair.b)), (5, 5));
    // Numbered 1, as one without a tag is that B has.
    pair.a.run("SET GLOBAL super_read_only=OFF");
    pair.a.run("STOP REPLICA");
    write(&pair.a, "errant", 100);
    pair.host_a.job(Job::Fence).expect("A is fenced");
    let peer_position = Some(pair.host_b.position());
    match pair.host_a.job(Job::Follow { peer_position }) {
        Err(Failure::Diverged { extra, transactions: 1, .. }) => {
            assert!(extra.ends_with(":errant:1"), "{extra}");
        }
        other => panic!("it must be refused: {other:?}"),
    }
    let extra = Position::parse(tandem::repl::Flavour::Mysql, &pair.host_a.position());
    assert!(extra.is_ok(), "{extra:?}");
}
