//! Virtual hosts: names, roots, what is closed, redirects.

use tandem::web::site;

use crate::backend::Backend;
use crate::client::Client;
use crate::front::Front;

fn site(text: &str) -> site::Config {
    toml::from_str(text).unwrap()
}

#[test]
fn each_host_gets_its_site() {
    let backends = Backend::pair();
    let php = backends.each_ref().map(|backend| backend.address);
    let other = crate::front::Tree::new();
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
