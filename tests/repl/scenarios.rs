//! Scenarios of facts/repl.md section 5 at the engine, each named by its number in scenarios.txt.
//!
//! In: a pair of real servers. Out: laws. Must not: know how a pair is made (`pair`).

use tandem::repl::plan::{Ending, Step, Switchover, Whom};

use super::*;

/// One run of the exchange on both engines, A's server the source if `from_a`, cut off after so
/// many queries of either; `None` when it was.
fn exchange(pair: &mut Pair, from_a: bool, deaths: Option<usize>) -> Option<Ending> {
    for host in [&mut pair.host_a, &mut pair.host_b] {
        host.restart();
    }
    let (position, flavour) = {
        let source = if from_a { &mut pair.host_a } else { &mut pair.host_b };
        (source.position(), source.observe().flavour.expect("it is up"))
    };
    let limit = Duration::from_secs(10);
    let mut plan = Switchover::new(flavour, position, limit, limit, true);
    let mut left = deaths;
    loop {
        match plan.next() {
            Step::Over(ending) => return Some(ending),
            Step::Run { whom, job, .. } => {
                let is_a = (whom == Whom::Source) == from_a;
                let host = if is_a { &mut pair.host_a } else { &mut pair.host_b };
                let before = host.queries;
                host.dies_after = left.map(|left| before + left);
                let result = host.try_job(job)?;
                left = left.map(|left| left - (host.queries - before));
                host.dies_after = None;
                plan.ended(result);
            }
        }
    }
}

/// 40: killed after every query in turn, and ordered again: never two sources, always one in the
/// end, and no row is lost.
pub(super) fn a_switchover_killed_after_any_query_is_finished_by_the_next(recipe: &'static Recipe) {
    let mut pair = Pair::new(recipe);
    pair.set_up();
    let (mut id, mut from_a) = (0, true);
    for deaths in 0.. {
        let source = if from_a { &pair.a } else { &pair.b };
        write_rows(source, id..id + 3);
        id += 3;
        let first = exchange(&mut pair, from_a, Some(deaths));
        let open = [&pair.a, &pair.b].map(|server| server.value("SELECT @@read_only") == "0");
        assert_ne!(open, [true, true], "after {deaths} queries both take writes");
        if first.is_none() {
            finish(&mut pair, from_a, deaths);
        }
        from_a = !from_a;
        let (new, old) = if from_a { (&pair.a, &pair.b) } else { (&pair.b, &pair.a) };
        let state = [new, old].map(|server| server.value("SELECT @@read_only"));
        assert_eq!(state, ["0", "1"], "after {deaths} queries");
        let count = usize::try_from(id).expect("few");
        assert_eq!(rows(new), count, "after {deaths} queries");
        eventually("the old source has them too", || rows(old) == count);
        if first.is_some() {
            assert!(deaths > 20, "the first one ended by itself after {deaths} queries");
            println!("{}: cut off after each of {deaths} queries", recipe.flavour);
            return;
        }
    }
}

/// As `mysqlrpladmin switchover` does it when it is run again: from what it finds.
fn finish(pair: &mut Pair, from_a: bool, deaths: usize) {
    for host in [&mut pair.host_a, &mut pair.host_b] {
        host.restart();
    }
    let (old, new) = if from_a {
        (&mut pair.host_a, &mut pair.host_b)
    } else {
        (&mut pair.host_b, &mut pair.host_a)
    };
    let is_promoted = !new.observe().is_read_only;
    if is_promoted {
        let peer_position = Some(new.position());
        let followed = old.job(Job::Follow { peer_position });
        assert!(followed.is_ok(), "after {deaths} queries: {followed:?}");
        return;
    }
    let is_replica = new.observe().replica.is_some();
    if is_replica {
        let peer_position = Some(old.position());
        let followed = new.job(Job::Follow { peer_position });
        assert!(followed.is_ok(), "after {deaths} queries: {followed:?}");
    } else {
        // It has everything, since only then it gives up its source.
        let limit = Duration::from_secs(3);
        let closed = old.job(Job::Close { limit });
        assert!(closed.is_ok(), "after {deaths} queries: {closed:?}");
        new.job(Job::Promote).expect("it is promoted");
        let peer_position = Some(new.position());
        old.job(Job::Follow { peer_position }).expect("the old source follows");
        return;
    }
    match exchange(pair, from_a, None) {
        Some(Ending::Switched { .. }) => {}
        other => panic!("after {deaths} queries: {other:?}"),
    }
}

/// 29: the old source comes back with a lost tail, which the new one has. MySQL skips what bears
/// its own server_id.
pub(super) fn a_source_that_lost_its_tail_gets_it_back_or_is_refused(recipe: &'static Recipe) {
    let mut pair = Pair::new(recipe);
    pair.set_up();
    write_rows(&pair.a, 0..5);
    pair.catch_up_b();
    pair.a.crash();
    pair.a.copy_data_aside();
    pair.a.start(&[]);
    pair.host_a.job(Job::Fence).expect("A is fenced");
    pair.host_a.job(Job::Promote).expect("A is the source");
    write_rows(&pair.a, 5..9);
    pair.catch_up_b();
    pair.a.crash();
    pair.a.put_data_back();
    pair.host_b.job(Job::Promote).expect("B is promoted");
    write_rows(&pair.b, 9..12);
    pair.a.start(&["--read-only=1"]);
    pair.host_a.job(Job::Fence).expect("A is fenced");
    assert_eq!(rows(&pair.a), 5, "it lost its tail");
    let position = pair.host_b.position();
    let followed = pair.host_a.job(Job::Follow { peer_position: Some(position.clone()) });
    if recipe.flavour == "mariadb" {
        let limit = Duration::from_secs(10);
        pair.host_a.job(Job::CatchUp { position, limit }).expect("A catches up");
        assert_eq!(rows(&pair.a), 12, "it has everything");
        return;
    }
    match followed {
        Err(Failure::Refused(why)) => {
            assert!(why.starts_with("4 transactions that this server made are lost"), "{why}");
        }
        other => panic!("it would lack them for ever: {other:?}"),
    }
    assert!(pair.host_a.observe().replica.is_none(), "it is not attached");
}

/// 58: a replica that gave up after its retries.
pub(super) fn a_replica_that_gave_up_is_started_again(recipe: &'static Recipe) {
    let is_new = recipe.flavour == "mysql97";
    if recipe.flavour == "mariadb" {
        return; // It has no such number.
    }
    let mut pair = Pair::new(recipe);
    pair.set_up();
    pair.b.run(if is_new { "STOP REPLICA" } else { "STOP SLAVE" });
    pair.b.run(if is_new {
        "CHANGE REPLICATION SOURCE TO SOURCE_RETRY_COUNT=1, SOURCE_CONNECT_RETRY=1"
    } else {
        "CHANGE MASTER TO MASTER_RETRY_COUNT=1, MASTER_CONNECT_RETRY=1"
    });
    pair.b.run(if is_new { "START REPLICA" } else { "START SLAVE" });
    eventually("it replicates", || {
        pair.host_b.observe().replica.is_some_and(|it| it.io == ThreadState::Running)
    });
    pair.a.crash();
    eventually("it gives up", || {
        pair.host_b.observe().replica.is_some_and(|it| it.io == ThreadState::Stopped)
    });
    pair.a.start(&[]);
    write_rows(&pair.a, 0..3);
    let peer_position = Some(pair.host_a.position());
    let followed = pair.host_b.job(Job::Follow { peer_position });
    assert_eq!(followed, Ok(Outcome::Following { was_following: false }));
    pair.catch_up_b();
}

/// 63: tagged GTIDs replicate, and errant ones are named with their tag.
pub(super) fn tagged_transactions_are_told_apart(recipe: &'static Recipe) {
    if recipe.flavour != "mysql97" {
        return;
    }
    let mut pair = Pair::new(recipe);
    pair.set_up();
    let tagged = |server: &Server, tag: &str, id: u32| {
        let mut conn = server.connect(ADMIN);
        conn.query_drop(format!("SET SESSION gtid_next='AUTOMATIC:{tag}'")).expect("a tag");
        conn.query_drop(format!("INSERT INTO app.t VALUES ({id}, 'tagged')")).expect("a write");
    };
    tagged(&pair.a, "blue", 1);
    pair.catch_up_b();
    assert!(pair.host_b.position().contains(":blue:1"));
    pair.b.crash();
    tagged(&pair.a, "blue", 2);
    tagged(&pair.a, "red", 3);
    pair.a.crash();
    pair.b.start(&["--read-only=1"]);
    pair.host_b.job(Job::Fence).expect("B is fenced");
    pair.host_b.job(Job::Promote).expect("B is promoted");
    pair.a.start(&[]);
    pair.host_a.job(Job::Fence).expect("A is fenced");
    let peer_position = Some(pair.host_b.position());
    match pair.host_a.job(Job::Follow { peer_position }) {
        Err(Failure::Diverged { extra, transactions: 2, .. }) => {
            assert!(extra.ends_with(":blue:2:red:1"), "{extra}");
        }
        other => panic!("must be refused: {other:?}"),
    }
}

/// 65: several domains, and a server that is not strict.
pub(super) fn several_domains_are_compared_each_by_its_own(recipe: &'static Recipe) {
    if recipe.flavour != "mariadb" {
        return;
    }
    let mut pair = Pair::new(recipe);
    pair.set_up();
    for server in [&pair.a, &pair.b] {
        server.run("SET GLOBAL gtid_strict_mode=OFF");
    }
    let in_domain = |server: &Server, domain: u32, id: u32| {
        let mut conn = server.connect(ADMIN);
        conn.query_drop(format!("SET SESSION gtid_domain_id={domain}")).expect("a domain");
        conn.query_drop(format!("INSERT INTO app.t VALUES ({id}, 'd')")).expect("a write");
    };
    in_domain(&pair.a, 7, 1);
    in_domain(&pair.a, 9, 2);
    write_rows(&pair.a, 10..12);
    pair.catch_up_b();
    pair.a.crash();
    pair.host_b.job(Job::Promote).expect("B is promoted");
    in_domain(&pair.b, 7, 3);
    pair.a.start(&[]);
    pair.host_a.job(Job::Fence).expect("A is fenced");
    let position = pair.host_b.position();
    let followed = pair.host_a.job(Job::Follow { peer_position: Some(position.clone()) });
    assert_eq!(followed, Ok(Outcome::Following { was_following: false }));
    let limit = Duration::from_secs(10);
    pair.host_a.job(Job::CatchUp { position, limit }).expect("A catches up");
    assert_eq!(rows(&pair.a), 5);

    // One more in one domain, and no other: this alone is errant.
    pair.a.crash();
    pair.a.start(&[]);
    in_domain(&pair.a, 9, 4);
    pair.host_a.job(Job::Fence).expect("A is fenced");
    let peer_position = Some(pair.host_b.position());
    match pair.host_a.job(Job::Follow { peer_position }) {
        Err(Failure::Diverged { extra, transactions: 1, .. }) => assert_eq!(extra, "9-1-2"),
        other => panic!("must be refused: {other:?}"),
    }
}
