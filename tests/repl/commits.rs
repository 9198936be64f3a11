//! Laws of the commit probe: what hangs is seen, and what only waits is not taken for it.
//!
//! In: a pair of real servers. Out: laws. Must not: know how a pair is made (`pair`).
//! Read first: src/repl/probe.rs; facts/repl.md section 5, scenarios 4, 36, 57.

use tandem::repl::Commits;

use super::*;

fn hangs(pair: &mut Pair) -> bool {
    matches!(pair.host_a.observe().commits, Commits::Hang(_))
}

/// Looks at A for so long, and asserts that no look finds its commits hanging.
fn watch(pair: &mut Pair, span: Duration, what: &str) {
    let began = Clock::now();
    while began.elapsed() < span {
        let seen = pair.host_a.observe();
        assert!(seen.state == State::Up && seen.commits == Commits::End, "{what}: {seen:?}");
    }
}

const LONGER_THAN_PATIENCE: Duration = Duration::from_millis(10_500);

/// A writer whose rows are 100 kB each, until one is refused.
fn fill(server: &Server) -> thread::JoinHandle<()> {
    let mut conn = server.connect(APP);
    thread::spawn(move || {
        for id in 0..1000 {
            let sql = format!("INSERT INTO app.t VALUES ({id}, REPEAT('x', 100000))");
            if conn.query_drop(sql).is_err() {
                return;
            }
        }
        panic!("the disk is not full");
    })
}

pub(super) fn a_full_disk_is_seen_by_a_commit_that_does_not_end(recipe: &'static Recipe) {
    let mut pair = Pair::on_small_disks(recipe);
    pair.host_a.job(Job::Promote).expect("A is promoted");
    pair.a.run("CREATE DATABASE app");
    pair.a.run("CREATE TABLE app.t (id INT PRIMARY KEY, v LONGTEXT) ENGINE=InnoDB");
    watch(&mut pair, Duration::from_millis(2500), "an idle source");
    let position = pair.host_a.position();
    let probed = pair.a.value("SELECT at FROM tandem.commit_probe");
    assert!(!probed.is_empty(), "it was probed");
    let writer = fill(&pair.a);
    let began = Clock::now();
    eventually("the hanging commit is seen", || hangs(&mut pair));
    println!("{}: a full disk was seen after {:?}", recipe.flavour, began.elapsed());
    let Commits::Hang(why) = pair.host_a.observe().commits else { panic!("it is over") };
    println!("{}: {why}", recipe.flavour);
    assert_eq!(pair.host_a.observe().state, State::Up, "it answers all the while");
    assert_ne!(pair.host_a.position(), position, "what was committed before counts");
    let fenced = pair.host_a.job(Job::Fence);
    println!("{}: fenced with a hanging probe: {fenced:?}", recipe.flavour);
    // The end of the process is the fence that always works.
    let std::net::SocketAddr::V4(address) = pair.a.address else { panic!("IPv4 only") };
    let ended = tandem::os::listener::end(address).expect("proc is mounted");
    assert!(ended.len() <= 1, "{ended:?}");
    eventually("it is gone", || pair.host_a.observe().state != State::Up);
    writer.join().expect("the writer ends with its server");
}

pub(super) fn what_only_waits_is_no_hang(recipe: &'static Recipe) {
    let mut pair = Pair::new(recipe);
    pair.set_up();
    // A backup's lock, and a table lock of an application.
    let mut backup = pair.a.connect(ADMIN);
    backup.query_drop("FLUSH TABLES WITH READ LOCK").expect("a backup");
    watch(&mut pair, LONGER_THAN_PATIENCE, "a backup's lock");
    backup.query_drop("UNLOCK TABLES").expect("the backup ends");
    write_rows(&pair.a, 0..1);
    // Nothing of the probe is replicated, and nothing of it is errant.
    pair.catch_up_b();
    assert_eq!(pair.host_a.position(), pair.host_b.position());

    // Commits that wait for a replica that hangs: the pair's own rule is about these.
    if recipe.flavour == "mysql56" {
        return;
    }
    let_commits_wait(&mut pair);
    pair.b.signal(Signal::SIGSTOP);
    let mut conn = pair.a.connect(APP);
    let writer = thread::spawn(move || conn.query_drop("INSERT INTO app.t VALUES (1, 'waits')"));
    eventually("a commit waits", || pair.host_a.observe().semi_sync.waiting == 1);
    watch(&mut pair, LONGER_THAN_PATIENCE, "a wait for the replica");
    assert_eq!(pair.host_a.observe().semi_sync.waiting, 1, "the probe does not wait too");
    pair.b.signal(Signal::SIGCONT);
    writer.join().expect("the writer ends").expect("it is acknowledged in the end");
}

/// 5: a disk that is full of temporary tables fails queries, and not the service.
pub(super) fn a_full_disk_for_temporary_tables_is_no_hang(recipe: &'static Recipe) {
    let mut pair = Pair::on_small_disks(recipe);
    let directory = format!("--tmpdir={}", pair.a.disk().display());
    pair.a.crash();
    pair.a.start(&["--log-bin=binlog", &directory]);
    pair.host_a.job(Job::Promote).expect("A is promoted");
    pair.a.run("CREATE DATABASE app");
    pair.a.run("CREATE TABLE app.t (id INT PRIMARY KEY, v VARCHAR(60)) ENGINE=InnoDB");
    write_rows(&pair.a, 0..40);
    pair.a.fill_disk();
    let mut conn = pair.a.connect(APP);
    conn.query_drop("SET SESSION sort_buffer_size=32768").expect("a setting");
    let sql = "SELECT a.id FROM app.t a, app.t b, app.t c \
               ORDER BY CONCAT(REPEAT('x', 500), RAND()), a.id";
    conn.query::<u32, _>(sql).expect_err("there is no room for it");
    watch(&mut pair, LONGER_THAN_PATIENCE, "no room for temporary tables");
    write_rows(&pair.a, 40..41);
}
