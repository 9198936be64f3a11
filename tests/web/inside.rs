//! Files that a script has sent in its place (X-Accel-Redirect), and the operator's error pages.

use crate::backend::{Backend, Mode};
use crate::client::{Client, get};
use crate::front::{Front, Tree};

#[test]
fn a_script_has_a_file_sent_that_nobody_else_gets() {
    // J46
    let backends = Backend::pair();
    let php = backends.each_ref().map(|backend| backend.address);
    let front = Front::start_with(php, |config| config.deny = vec!["/bare".into()]);
    std::fs::write(front.root().join("bare/a file.bin"), "0123456789").unwrap();
    let say = |text: &str| backends.iter().for_each(|backend| backend.say(text));
    say("X-Accel-Redirect: /bare/a%20file.bin?x\r\nContent-Type: text/x\r\nX-Other: y\r\n\
         Content-Disposition: attachment\r\nSet-Cookie: a=1\r\n\r\nnot this");
    let mut client = Client::connect(front.address);
    assert_eq!(client.get("/bare/a%20file.bin").status, 403);
    let answer = client.get("/t.php");
    assert_eq!((answer.status, answer.text().as_str()), (200, "0123456789"));
    assert_eq!(answer.header("content-type"), Some("text/x"));
    assert_eq!(answer.header("content-disposition"), Some("attachment"));
    assert_eq!(answer.header("set-cookie"), Some("a=1"));
    assert!(!answer.head.contains("X-Other") && !answer.head.contains("Accel"));
    client.request("GET", "/t.php", "Range: bytes=2-4\r\n");
    let answer = client.answer();
    assert_eq!((answer.status, answer.text().as_str()), (206, "234"));
    client.request("POST", "/t.php", "Content-Length: 2\r\n");
    client.send("hi");
    assert_eq!(client.answer().text(), "0123456789");
    client.request("HEAD", "/t.php", "");
    assert_eq!(client.answer_to("HEAD").header("content-length"), Some("10"));
    let mut pipelined = Client::connect(front.address);
    pipelined.send("GET /t.php HTTP/1.1\r\nHost: a\r\n\r\n".repeat(5));
    for _ in 0..5 {
        assert_eq!(pipelined.answer().text(), "0123456789");
    }
    for (target, status) in [
        ("/large.bin", 200),
        ("/t.php", 404),
        ("/htmldir", 404),
        ("/../../etc/passwd", 500),
        ("/.secret", 404),
        ("/missing", 404),
        ("//a/b", 404),
    ] {
        say(&format!("X-Accel-Redirect: {target}\r\n\r\n"));
        assert_eq!(client.get("/t.php").status, status, "{target}");
    }
    front.wait("no peer is left taken", |status| status.in_flight == 0);
}

#[test]
fn error_pages_are_the_operators() {
    let backends = Backend::pair();
    let php = backends.each_ref().map(|backend| backend.address);
    let other = Tree::new();
    other.write("502.html", "<p>soon back</p>");
    let path = |name: &str| other.root.join(name).to_str().unwrap().to_owned();
    let front = Front::start_with(php, |config| {
        config.error_page.insert("502".into(), path("502.html"));
        config.error_page.insert("404".into(), path("not there"));
    });
    backends.iter().for_each(|backend| backend.set(Mode::CloseAfterRead));
    let answer = get(front.address, "/t.php");
    assert_eq!((answer.status, answer.text().as_str()), (502, "<p>soon back</p>"));
    assert!(get(front.address, "/missing").text().contains("404 Not Found"));
}
