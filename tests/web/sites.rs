//! Virtual hosts: names, roots, what is closed, redirects.

use tandem::web::site;

use crate::backend::Backend;
use crate::client::{Client, get};
use crate::front::{Front, Tree};

fn site(text: &str) -> site::Config {
    toml::from_str(text).unwrap()
}

#[test]
fn each_host_gets_its_site() {
    let backends = Backend::pair();
    let php = backends.each_ref().map(|backend| backend.address);
    let other = Tree::new();
    other.write("range.txt", "the other one");
    other.write("index.php", "<?php");
    let root = other.root.to_str().unwrap().to_owned();
    let front = Front::start_with(php, |config| {
        config.deny = vec!["/htmldir".into()];
        config.sites = vec![
            site(&format!(
                "server_name = [\"b.test\", \"*.b.test\"]\nroot = \"{root}\"\n\
                 front_controller = true\nno_execute = [\"/phpdir\"]"
            )),
            site(
                "server_name = [\"old.test\"]\n\
                 redirect = [{ from = \"/\", to = \"https://b.test/\", status = 308 }]",
            ),
        ];
    });
    let mut client = Client::connect(front.address);
    let mut ask = |host: &str, target: &str| {
        client.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        client.answer()
    };
    for host in ["b.test", "B.Test:8080", "b.test.", "x.y.b.test"] {
        assert_eq!(ask(host, "/range.txt").text(), "the other one", "{host}");
    }
    for host in ["a.test", "xb.test", "127.0.0.1"] {
        assert_eq!(ask(host, "/range.txt").body.len(), 1000, "{host}");
        assert_eq!(ask(host, "/htmldir/").status, 403);
    }
    let text = ask("b.test", "/blog/1?q").text();
    assert!(text.contains(&format!("SCRIPT_FILENAME={root}/index.php\n")), "{text}");
    assert!(text.contains(&format!("DOCUMENT_ROOT={root}\n")), "{text}");
    assert_eq!(ask("a.test", "/blog/1").status, 404);
    assert_eq!(ask("b.test", "/phpdir/").status, 403);
    assert_eq!(ask("b.test", "/htmldir/").status, 200);
    let answer = ask("old.test", "/a%20b/c?d=e");
    assert_eq!(answer.status, 308);
    assert_eq!(answer.header("location"), Some("https://b.test/a%20b/c?d=e"));
    // A body that comes with it is not the next request.
    client.send("POST /x HTTP/1.1\r\nHost: old.test\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!(client.answer().status, 308);
    client.send("GET /range.txt HTTP/1.1\r\nHost: b.test\r\n\r\n");
    assert_eq!(client.answer().text(), "the other one");
}

/// `openssl passwd -6 -salt saltstring secret`.
pub(crate) const USERS: &str = "\
    ann:$6$saltstring$AIsRs/Ee56G/tC8MEHhvReZTfx8u3rXXMl6eYrjCG9ibix19DxoMBLogd\
    TET5Ukw9Sf7eZTITsuk0Ry5qulYz.\n";

#[test]
fn a_location_asks_for_a_password_lets_networks_in_and_bounds_bodies() {
    let files = Tree::new();
    files.write("users", USERS);
    let users = files.root.join("users");
    let backends = Backend::pair();
    let front = Front::start_with(backends.each_ref().map(|backend| backend.address), |config| {
        let location = |text: &str| toml::from_str(text).unwrap();
        config.access_log = files.root.join("log").to_str().unwrap().to_owned();
        config.location = vec![
            location(&format!(
                "prefix = \"/\"\nauth_basic = \"here\"\nauth_basic_user_file = {users:?}\n"
            )),
            location("prefix = \"/htmldir\"\nallow = [\"192.0.2.0/24\"]\n"),
            location("prefix = \"/phpdir\"\nallow = [\"127.0.0.0/8\"]\n"),
            location("prefix = \"/t.php\"\nclient_max_body_size = \"1KiB\"\n"),
        ];
    });
    let answer = get(front.address, "/range.txt");
    let asked = Some("Basic realm=\"here\", charset=\"UTF-8\"");
    assert_eq!((answer.status, answer.header("www-authenticate")), (401, asked));
    let mut client = Client::connect(front.address);
    for (credentials, status) in [("YW5uOnNlY3JldA==", 200), ("YW5uOndyb25n", 401)] {
        let line = format!("Authorization: Basic {credentials}\r\n");
        client.request("GET", "/range.txt", &line);
        assert_eq!(client.answer().status, status);
    }
    assert_eq!(get(front.address, "/htmldir/").status, 403);
    assert_eq!(get(front.address, "/phpdir/").status, 200);
    client.request("POST", "/t.php", "Content-Length: 1025\r\n");
    assert_eq!(client.answer().status, 413);
    let mut client = Client::connect(front.address);
    client.request("POST", "/t.php", "Content-Length: 1024\r\n");
    client.send("x".repeat(1024));
    assert_eq!(client.answer().status, 200);
    drop(front);
    let log = std::fs::read_to_string(files.root.join("log")).unwrap();
    assert!(log.contains(" - ann ["), "{log}");
}
