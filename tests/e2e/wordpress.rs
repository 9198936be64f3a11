//! A real application behind the pair: WordPress, installed, written in and read through tandem.
//!
//! In: Debian's WordPress (scripts/wordpress) on both hosts, its database behind the splitter.
//! Out: the site as a visitor and an author see it, before, while and after a host dies.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::database;
use crate::host::{Host, inside, text};
use crate::load::{Answer, exchange};
use crate::pair::{EXAMPLE, OUTSIDE_VIP, Pair, SETTLE_LIMIT};
use crate::world::{Outcome, wait_until};
use crate::{check, flavour};

const PASSWORD: &str = "a long password of the author";
/// WordPress asks nothing of the world outside, and finds its database through the splitter.
const CONFIG: &str = "<?php
define('DB_NAME', 'app');
define('DB_USER', 'app');
define('DB_PASSWORD', 'app-Xp29at5F37');
define('DB_HOST', '127.0.0.1:1234');
define('WP_HOME', 'http://10.96.153.239');
define('WP_SITEURL', 'http://10.96.153.239');
define('AUTH_KEY', 'the same on both hosts 1');
define('SECURE_AUTH_KEY', 'the same on both hosts 2');
define('LOGGED_IN_KEY', 'the same on both hosts 3');
define('NONCE_KEY', 'the same on both hosts 4');
define('AUTH_SALT', 'the same on both hosts 5');
define('SECURE_AUTH_SALT', 'the same on both hosts 6');
define('LOGGED_IN_SALT', 'the same on both hosts 7');
define('NONCE_SALT', 'the same on both hosts 8');
define('WP_HTTP_BLOCK_EXTERNAL', true);
define('AUTOMATIC_UPDATER_DISABLED', true);
define('DISABLE_WP_CRON', true);
$table_prefix = 'wp_';
if (!defined('ABSPATH')) { define('ABSPATH', __DIR__ . '/'); }
require_once ABSPATH . 'wp-settings.php';
";

/// A browser that keeps its cookies.
struct Browser {
    /// Where the client is.
    network: File,
    cookies: BTreeMap<String, String>,
    nonce: String,
}

impl Browser {
    fn new(client: &Host) -> Outcome<Self> {
        Ok(Self { network: client.network()?, cookies: BTreeMap::new(), nonce: String::new() })
    }

    fn get(&mut self, path: &str) -> Outcome<Answer> {
        self.open("GET", path, &[])
    }

    fn post(&mut self, path: &str, form: &[(&str, &str)]) -> Outcome<Answer> {
        self.open("POST", path, form)
    }

    fn open(&mut self, method: &str, path: &str, form: &[(&str, &str)]) -> Outcome<Answer> {
        let fields: Vec<String> =
            form.iter().map(|(name, value)| format!("{name}={}", escape(value))).collect();
        let body = fields.join("&");
        let cookies: Vec<String> =
            self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {OUTSIDE_VIP}\r\nConnection: close\r\n\
             Cookie: {}\r\nX-WP-Nonce: {}\r\nContent-Length: {}\r\n\
             Content-Type: application/x-www-form-urlencoded\r\n\r\n{body}",
            cookies.join("; "),
            self.nonce,
            body.len()
        );
        let target = SocketAddr::from((OUTSIDE_VIP, 80));
        let limit = Instant::now() + Duration::from_secs(30);
        let answer = inside(&self.network, || exchange(target, &request, limit))?;
        let answer = answer.map_err(|why| format!("{path}: {why}"))?;
        for cookie in answer.header("set-cookie") {
            let pair = cookie.split(';').next().unwrap_or(cookie);
            let (name, value) = pair.split_once('=').ok_or_else(|| cookie.to_owned())?;
            self.cookies.insert(name.to_owned(), value.to_owned());
        }
        Ok(answer)
    }

    /// Asks for a page that must have these words.
    fn see(&mut self, path: &str, words: &str) -> Outcome<()> {
        let answer = self.get(path)?;
        has(&answer, 200, words).map_err(|why| format!("{path}: {why}"))
    }

    fn log_in(&mut self) -> Outcome<()> {
        self.get("/wp-login.php")?;
        let form = [("log", "author"), ("pwd", PASSWORD), ("testcookie", "1")];
        let answer = self.post("/wp-login.php", &form)?;
        has(&answer, 302, "").map_err(|why| format!("log in: {why}"))?;
        self.nonce = self.get("/wp-admin/admin-ajax.php?action=rest-nonce")?.body;
        check(self.nonce.len() == 10, || format!("no nonce: {}", self.nonce))
    }

    /// Publishes a post; its path.
    fn publish(&mut self, title: &str) -> Outcome<String> {
        let form = [("title", title), ("content", "words of the post"), ("status", "publish")];
        let answer = self.post("/wp-json/wp/v2/posts", &form)?;
        has(&answer, 201, title).map_err(|why| format!("publish: {why}"))?;
        let link = answer.body.split("\"link\":\"").nth(1).and_then(|it| it.split('"').next());
        let path =
            link.and_then(|it| it.replace("\\/", "/").strip_prefix(&home()).map(str::to_owned));
        path.ok_or_else(|| format!("no link: {}", answer.body))
    }
}

fn home() -> String {
    format!("http://{OUTSIDE_VIP}")
}

fn has(answer: &Answer, status: u16, words: &str) -> Outcome<()> {
    check(answer.status == status && answer.body.contains(words), || {
        let body: String = answer.body.chars().take(600).collect();
        format!("no {words:?} in {} {body}", answer.head)
    })
}

/// application/x-www-form-urlencoded, every byte that is not a letter or a digit.
fn escape(value: &str) -> String {
    let escape = |byte: u8| {
        if byte.is_ascii_alphanumeric() {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02X}")
        }
    };
    value.bytes().map(escape).collect()
}

/// The application's files on a host, as a deployment copies them.
fn deploy(host: &Host) -> Outcome<()> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/wordpress");
    let output = Command::new(script).process_group(0).output().map_err(text)?;
    let from = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    check(output.status.success(), || String::from_utf8_lossy(&output.stderr).into_owned())?;
    let root = host.path("/var/www/html");
    let copied = Command::new("cp").args(["-r", &format!("{from}/.")]).arg(&root).status();
    check(copied.is_ok_and(|status| status.success()), || format!("cannot copy {from}"))?;
    fs::write(root.join("wp-config.php"), CONFIG).map_err(text)
}

fn install(browser: &mut Browser) -> Outcome<()> {
    let form = [
        ("weblog_title", "A site on two hosts"),
        ("user_name", "author"),
        ("admin_password", PASSWORD),
        ("admin_password2", PASSWORD),
        ("admin_email", "author@example.org"),
        ("blog_public", "0"),
    ];
    let answer = browser.post("/wp-admin/install.php?step=2", &form)?;
    has(&answer, 200, "Success!").map_err(|why| format!("install: {why}"))
}

fn visit(pair: &mut Pair) -> Outcome<()> {
    let mut browser = Browser::new(&pair.client)?;
    install(&mut browser)?;
    browser.log_in()?;
    browser.see("/wp-admin/", "Dashboard")?;
    let path = browser.publish("The first post")?;
    // The installer tries whether paths that name no file arrive, and gives posts such paths then.
    check(path.starts_with("/20") && path.ends_with("/the-first-post/"), || {
        format!("the front controller's path: {path}")
    })?;
    browser.see(&path, "words of the post")?;
    browser.see("/", "The first post")?;
    let answer = browser.get("/no-such-post/")?;
    has(&answer, 404, "A site on two hosts")?;
    let answer = browser.get("/wp-admin")?;
    check(
        answer.status == 301 && answer.header("location").any(|it| it.ends_with("/wp-admin/")),
        || format!("a directory without its slash: {}", answer.head),
    )?;
    browser.see("/wp-includes/css/dist/block-library/style.min.css", ".wp-block")?;
    let answer = browser.get("/wp-config.php")?;
    check(answer.status == 200 && answer.body.is_empty(), || "a script is run, not shown".into())?;

    pair.power_off(0)?;
    wait_until("the site is back", Duration::from_secs(10), || {
        browser.see(&path, "words of the post").is_ok()
    })?;
    // The cookie that server1's PHP gave is good here, and what is written stays.
    let second = browser.publish("The second post")?;
    for _ in 0..10 {
        browser.see(&second, "words of the post")?;
    }
    pair.power_on(0)?;
    pair.wait_settled(1, SETTLE_LIMIT)?;
    let titles = "SELECT post_title FROM app.wp_posts WHERE post_status = 'publish' \
                  AND post_type = 'post' AND post_title LIKE 'The % post' ORDER BY ID";
    wait_until("both databases have both posts", Duration::from_secs(10), || {
        let has_both = |host: &Host| {
            database::ask(host, titles)
                .is_ok_and(|rows| rows == [["The first post"], ["The second post"]])
        };
        pair.servers.iter().all(|server| has_both(&server.host))
    })?;
    let mut browser = Browser::new(&pair.client)?;
    browser.see(&second, "words of the post")
}

#[test]
fn wordpress_lives_through_the_death_of_a_host() {
    let mut pair = Pair::new(flavour()).unwrap_or_else(|why| panic!("{why}"));
    let config = format!("{EXAMPLE}front_controller = true\n");
    let began = (0..2).try_for_each(|number| {
        deploy(&pair.servers[number].host)?;
        pair.configure(number, &config)?;
        pair.start_tandem(number)
    });
    let done = began
        .and_then(|()| pair.wait_settled(0, SETTLE_LIMIT))
        .and_then(|_| pair.make_schema())
        .and_then(|()| visit(&mut pair));
    if let Err(why) = done {
        panic!("{why}\n{}", pair.logs());
    }
}
