//! Kinds of clients and servers: PHP, caching_sha2_password, an old server, clients before servers;
//! and the splitter's own cost.
//!
//! In: real servers and programs. Out: laws. Must not: know how a pair is made (`servers`).

use super::*;

#[test]
fn php_works_with_mysqli_and_pdo() {
    let pair = Pair::shared();
    let front = Front::start(pair.ports(), |_| {});
    connect(&front);
    let port = front.address.port();
    let script = format!(
        r#"
        mysqli_report(MYSQLI_REPORT_ERROR | MYSQLI_REPORT_STRICT);
        $m = new mysqli('127.0.0.1', 'app', '{PASSWORD}', 't', {port});
        $m->set_charset('utf8mb4');
        echo $m->query('SELECT name FROM mark')->fetch_row()[0], "\n";
        $m->query('CREATE TABLE IF NOT EXISTS php (a INT AUTO_INCREMENT PRIMARY KEY, b TEXT)');
        $m->query("INSERT INTO php (b) VALUES ('é\\'')");
        echo $m->insert_id, ' ', $m->query('SELECT LAST_INSERT_ID()')->fetch_row()[0], "\n";
        $s = $m->prepare('SELECT b FROM php WHERE a = ?');
        $one = 1; $s->bind_param('i', $one); $s->execute();
        echo $s->get_result()->fetch_row()[0], "\n";
        $m->close();
        foreach ([true, false] as $emulate) {{
            $p = new PDO('mysql:host=127.0.0.1;dbname=t;charset=utf8mb4;port={port}', 'app',
                '{PASSWORD}', [PDO::ATTR_EMULATE_PREPARES => $emulate,
                PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION]);
            $q = $p->prepare('SELECT name FROM mark WHERE 1 = ?');
            $q->execute([1]);
            echo $q->fetchColumn(), "\n";
            $p->beginTransaction();
            $p->exec("INSERT INTO php (b) VALUES ('x')");
            echo $p->query('SELECT name FROM mark')->fetchColumn(), "\n";
            $p->rollBack();
        }}
        try {{ new mysqli('127.0.0.1', 'app', 'wrong', 't', {port}); }}
        catch (mysqli_sql_exception $e) {{ echo $e->getCode(), "\n"; }}
        "#
    );
    let output = Command::new("php8.2").arg("-r").arg(script).output().expect("php runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let expected = "second\n1 1\né'\nsecond\nfirst\nsecond\nfirst\n1045\n";
    assert_eq!(text, expected, "{}", String::from_utf8_lossy(&output.stderr));
}

/// Where `scripts/servers` has unpacked MySQL 9.7: its caches of password hashes are empty after a
/// start, so the splitter's first log-in needs the server's RSA key.
#[test]
fn caching_sha2_works_cold_and_warm() {
    let Some(pair) = Pair::mysql97() else { return };
    let front = Front::start(pair.ports(), |config| config.read_own_writes = false);
    for _ in 0..2 {
        let mut conn = connect(&front);
        assert_eq!(conn.server_version().0, 9);
        assert_eq!(mark(&mut conn), "second");
        assert_eq!(one(&mut conn, "SELECT name FROM t.mark FOR UPDATE"), "first");
        assert_eq!(one(&mut conn, "SELECT @@character_set_client"), "utf8mb4");
        conn.query_drop("SET NAMES latin1").expect("sets");
        drop(conn);
        front.wait("both connections come back", |status| status.pooled == 2);
        for host in [0, 1] {
            pair.sql(host, "FLUSH PRIVILEGES");
        }
    }
    // A reused connection keeps its database over a reset, as the pool takes for granted.
    for _ in 0..2 {
        let mut conn = Conn::new(options(&front).db_name(Some("u"))).expect("logs in");
        assert_eq!(one(&mut conn, "SELECT name FROM mark"), "second-u");
        drop(conn);
        front.wait("the connection comes back", |status| status.pooled == 2);
    }
    let wrong = Conn::new(options(&front).pass(Some("wrong")));
    assert_eq!(code(wrong.map(drop)), 1045);
    let script = format!(
        "$m = new mysqli('127.0.0.1', 'app', '{PASSWORD}', 't', {}); \
         echo $m->query('SELECT name FROM mark')->fetch_row()[0];",
        front.address.port()
    );
    let output = Command::new("php8.2").arg("-r").arg(script).output().expect("php runs");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "second");
}

/// Over a path the server wants the password as it is, and no key is asked for.
#[test]
fn caching_sha2_works_cold_over_a_path() {
    let Some(pair) = Pair::mysql97() else { return };
    pair.sql(0, &format!("CREATE USER app@localhost IDENTIFIED BY '{PASSWORD}'"));
    pair.sql(0, "GRANT ALL ON *.* TO app@localhost");
    let front = Front::start(pair.ports(), |config| config.server_socket = Some(pair.socket(0)));
    for _ in 0..2 {
        assert_eq!(one(&mut connect(&front), "SELECT name FROM t.mark FOR UPDATE"), "first");
        pair.sql(0, "FLUSH PRIVILEGES");
    }
    let user = one(&mut connect(&front), "SELECT CURRENT_USER() FOR UPDATE");
    assert_eq!(user, "app@localhost");
}

/// Where `scripts/servers` has unpacked MySQL 5.6, which cannot reset a connection.
#[test]
fn an_old_server_works_without_reset() {
    let Some(pair) = Pair::mysql56() else { return };
    let front = Front::start(pair.ports(), |config| config.read_own_writes = false);
    for _ in 0..3 {
        let mut conn = connect(&front);
        assert_eq!(conn.server_version(), (5, 6, 24));
        assert_eq!(mark(&mut conn), "second");
        assert_eq!(one(&mut conn, "SELECT COALESCE(@leak, name) FROM t.mark"), "first");
        conn.query_drop("SET @leak = 1").expect("sets");
        conn.query_drop("BEGIN").expect("begins");
        assert!(!front.is_quiet());
        conn.query_drop("COMMIT").expect("commits");
        assert!(front.is_quiet());
        conn.reset().expect("resets, although the server cannot");
        assert_eq!(mark(&mut conn), "second");
    }
    assert_eq!(front.status().pooled, 0);
}

#[test]
fn clients_that_come_before_any_server_wait_for_its_greeting() {
    let pair = Pair::shared();
    let front = Front::start(pair.ports(), |_| {});
    // At once, so that the greeting is not known yet.
    let conn = connect(&front);
    assert_eq!(conn.server_version(), (5, 5, 5), "MariaDB 10 greets as 5.5.5-10.11");
    drop(conn);
    let nobody = Front::start([1, 1], |config| config.hold_limit = Duration::from_millis(200));
    // The driver asks for two variables at once; the answer says what is missing.
    assert_eq!(code(Conn::new(options(&nobody))), 1205);
}

/// `cargo test --profile quick --test sql figures -- --ignored --nocapture`
#[test]
#[ignore = "a measurement, not a law"]
fn figures() {
    let pair = Pair::shared();
    let front = Front::start(pair.ports(), |_| {});
    for clients in [1, 16] {
        let (each, cpu, since) = (20_000 / clients, front.cpu(), Clock::now());
        let threads: Vec<_> = (0..clients)
            .map(|_| {
                let mut client = RawClient::connect(&front);
                thread::spawn(move || (0..each).for_each(|_| client.round_trip(b"SELECT 1")))
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
        let count = each * clients;
        println!(
            "{clients} clients: {:?} a query, {:.1} us of the splitter's processor",
            since.elapsed() / count,
            (front.cpu() - cpu).as_secs_f64() * 1e6 / f64::from(count)
        );
    }
    let (cpu, since, logins) = (front.cpu(), Clock::now(), front.status().logins);
    for _ in 0..2000 {
        RawClient::connect(&front).round_trip(b"SELECT 1");
    }
    println!(
        "connect, query, leave: {:?}, {:.1} us of the splitter's processor, {} log-ins",
        since.elapsed() / 2000,
        (front.cpu() - cpu).as_secs_f64() * 1e6 / 2000.0,
        front.status().logins - logins
    );
}
