//! Cases of facts/web.md 4.2: static files, conditions, parameters, bodies, answers.

use std::time::{Duration, Instant};

use crate::backend::{Backend, Mode, end, padded, record, stdout};
use crate::client::{Client, get};
use crate::front::Front;

fn front() -> (Front, [Backend; 2]) {
    let backends = Backend::pair();
    (Front::start(backends.each_ref().map(|backend| backend.address)), backends)
}

/// The answer of both backends to one GET.
fn answer_to(text: &str) -> crate::client::Answer {
    let (front, backends) = front();
    backends.iter().for_each(|backend| backend.say(text));
    let mut client = Client::connect(front.address);
    client.get("/t.php")
}

#[test]
fn static_files_are_sent() {
    let (front, _backends) = front();
    let mut client = Client::connect(front.address);
    // A01
    let answer = client.get("/range.txt");
    assert_eq!((answer.status, answer.body.len()), (200, 1000));
    assert_eq!(answer.header("last-modified"), Some("Tue, 14 Nov 2023 22:13:20 GMT"));
    assert_eq!(answer.header("etag"), Some("\"6553f100-3e8\""));
    assert_eq!(answer.header("accept-ranges"), Some("bytes"));
    assert_eq!(answer.header("content-type"), Some("text/plain"));
    // A02
    client.request("HEAD", "/range.txt", "");
    let answer = client.answer_to("HEAD");
    assert_eq!((answer.status, answer.header("content-length")), (200, Some("1000")));
    // A03, A06
    let answer = client.get("/empty.txt");
    assert_eq!((answer.status, answer.header("content-length")), (200, Some("0")));
    assert_eq!(client.get("/nosuffix").header("content-type"), Some("application/octet-stream"));
    // A08, A09, A10, A13, A22, A23, dot-files
    for (target, status, location) in [
        ("/htmldir", 301, Some("/htmldir/")),
        ("/htmldir?a=b", 301, Some("/htmldir/?a=b")),
        ("/sp%20ace?x", 301, Some("/sp%20ace/?x")),
        ("//htmldir", 301, Some("/htmldir/")),
        ("/htmldir/", 200, None),
        ("/bare/", 403, None),
        ("/range.txt/", 404, None),
        ("/missing", 404, None),
        ("/.secret", 404, None),
        ("/missing.php", 404, None),
        ("/range.txt/x.php", 404, None),
    ] {
        let answer = client.get(target);
        assert_eq!((answer.status, answer.header("location")), (status, location), "{target}");
    }
    assert_eq!(client.get(&format!("/{}", "n".repeat(300))).status, 404);
    // A16, A20: a body that nobody wants is not the next request (G13)
    for method in ["POST", "FOO"] {
        client.send(format!(
            "{method} /range.txt HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
        ));
        assert_eq!(client.answer().status, 405);
    }
    assert_eq!(client.get("/range.txt").status, 200);
    // A18, A19
    for request in
        ["TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n"]
    {
        let mut client = Client::connect(front.address);
        client.send(request);
        assert_eq!(client.answer().status, 405);
        assert!(client.is_closed());
    }
}

#[test]
fn options_of_the_server_are_told_and_several_ranges_get_the_whole_file() {
    let (front, backends) = front();
    let mut client = Client::connect(front.address);
    client.request("OPTIONS", "*", "");
    let answer = client.answer();
    assert_eq!((answer.status, answer.header("content-length")), (200, Some("0")));
    assert!(answer.header("allow").is_some_and(|allow| allow.contains("OPTIONS")));
    client.request("OPTIONS", "/t.php", "");
    assert_eq!(client.answer().status, 200);
    assert_eq!(backends.iter().map(|backend| backend.seen().len()).sum::<usize>(), 1);
    client.request("GET", "/range.txt", "Range: bytes=0-1,5-6\r\n");
    let answer = client.answer();
    assert_eq!((answer.status, answer.body.len()), (200, 1000));
}

#[test]
fn a_large_file_goes_out_whole_and_in_parts() {
    let (front, _backends) = front();
    let expected = std::fs::read(front.root().join("large.bin")).unwrap();
    let mut client = Client::connect(front.address);
    assert!(client.get("/large.bin").body == expected);
    client.request("GET", "/large.bin", "Range: bytes=1000000-2000000\r\n");
    let answer = client.answer();
    assert_eq!(answer.status, 206);
    assert_eq!(answer.header("content-range"), Some("bytes 1000000-2000000/3000000"));
    assert!(answer.body == expected[1_000_000..=2_000_000]);
    client.request("GET", "/range.txt", "Range: bytes=2000-\r\n");
    assert_eq!(client.answer().status, 416);
    // A reader that takes its time gets all of it as well.
    client.request("GET", "/large.bin", "");
    std::thread::sleep(Duration::from_millis(300));
    assert!(client.answer().body == expected);
}

#[test]
fn conditions_give_304_and_412_and_leave_no_stray_byte() {
    let (front, _backends) = front();
    let mut client = Client::connect(front.address);
    for (lines, status) in [
        ("If-Modified-Since: Tue, 14 Nov 2023 22:13:20 GMT\r\n", 304),
        ("If-None-Match: *\r\n", 304),
        ("If-None-Match: W/\"6553f100-3e8\"\r\n", 304),
        ("If-Match: \"foo\"\r\n", 412),
        ("", 200),
    ] {
        client.request("GET", "/range.txt", lines);
        assert_eq!(client.answer().status, status, "{lines}");
    }
    client.request("GET", "/missing", "If-Match: \"foo\"\r\n");
    assert_eq!(client.answer().status, 404);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let (front, _backends) = front();
    let mut client = Client::connect(front.address);
    let mut bytes = String::new();
    for number in 0..50 {
        bytes.push_str(&format!("GET /t.php?n={number} HTTP/1.1\r\nHost: a\r\n\r\n"));
        bytes.push_str("GET /range.txt HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    // G11
    bytes.push_str("POST /t.php HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
    bytes.push_str("POST /t.php HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    bytes.push_str("3\r\nabc\r\n0\r\n\r\nGET /large.bin HTTP/1.1\r\nHost: a\r\n\r\n");
    client.send(bytes);
    for number in 0..50 {
        let text = client.answer().text();
        assert!(text.contains(&format!("QUERY_STRING=n={number}\n")), "{text}");
        assert_eq!(client.answer().body.len(), 1000);
    }
    assert!(client.answer().text().contains("stdin=3 "));
    let text = client.answer().text();
    // F12
    assert!(text.contains("stdin=3 ") && text.contains("CONTENT_LENGTH=3\n"), "{text}");
    assert!(!text.contains("HTTP_TRANSFER_ENCODING"), "{text}");
    assert_eq!(client.answer().body.len(), 3_000_000);
}

#[test]
fn http_10_closes_unless_it_is_asked_to_stay() {
    let (front, _backends) = front();
    for target in ["/range.txt", "/t.php"] {
        let mut client = Client::connect(front.address);
        client.send(format!("GET {target} HTTP/1.0\r\n\r\n"));
        let answer = client.answer();
        assert!(answer.status == 200 && !answer.head.contains("chunked"), "{}", answer.head);
        assert!(client.is_closed());
        let mut client = Client::connect(front.address);
        for _ in 0..2 {
            client.send(format!("GET {target} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"));
            assert_eq!(client.answer().header("connection"), Some("keep-alive"));
        }
    }
}

#[test]
fn parameters_reach_php() {
    let (front, backends) = front();
    let mut client = Client::connect(front.address);
    let name = "X".repeat(200);
    client.send(format!(
        "GET http://a.test/t.php/info?q=1 HTTP/1.1\r\nHost: evil.test\r\nProxy: http://evil/\r\n\
         X_Real_Ip: 6.6.6.6\r\nX-Forwarded-For: a\r\nX-Forwarded-For: b\r\nCookie: a=1\r\n\
         Cookie: b=2\r\n{name}: y\r\n\r\n"
    ));
    let text = client.answer().text();
    let root = front.root().to_str().unwrap();
    for line in [
        "HTTP_HOST=a.test",
        "HTTP_X_FORWARDED_FOR=a, b",
        "HTTP_COOKIE=a=1; b=2",
        "REQUEST_URI=/t.php/info?q=1",
        "SCRIPT_NAME=/t.php",
        "PATH_INFO=/info",
        &format!("SCRIPT_FILENAME={root}/t.php"),
        &format!("HTTP_{name}=y"),
        "REMOTE_ADDR=127.0.0.1",
        &format!("SERVER_PORT={}", front.address.port()),
    ] {
        assert!(text.contains(&format!("{line}\n")), "{line} is not in {text}");
    }
    assert!(!text.contains("HTTP_PROXY") && !text.contains("REAL_IP"), "{text}");
    // A12
    assert!(get(front.address, "/phpdir/").text().contains("SCRIPT_NAME=/phpdir/index.php\n"));
    // F16
    let long = "v".repeat(7000);
    let lines: String = (0..4).map(|n| format!("X-{n}: {long}\r\n")).collect();
    client.request("GET", "/t.php", &lines);
    assert!(client.answer().text().contains(&format!("HTTP_X_3={long}\n")));
    assert_eq!(backends.iter().map(|backend| backend.seen().len()).sum::<usize>(), 3);
}

#[test]
fn bodies_arrive_whole_from_memory_and_from_the_file() {
    let (front, backends) = front();
    let mut client = Client::connect(front.address);
    for length in [5, 250_000, 262_144, 1_000_000, 2 << 20] {
        let body: Vec<u8> = (0..length).map(|n: u32| n.to_le_bytes()[0]).collect();
        client.send(format!("POST /t.php HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"));
        client.send(&body);
        assert!(client.answer().text().contains(&format!("stdin={length} ")), "{length}");
        client.send("POST /t.php HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        for chunk in body.chunks(70_001) {
            client.send(format!("{:x};ext=1\r\n", chunk.len()));
            client.send(chunk);
            client.send("\r\n");
        }
        client.send("0\r\nTrailer: x\r\n\r\n");
        let text = client.answer().text();
        assert!(text.contains(&format!("CONTENT_LENGTH={length}\n")), "{length}: {text}");
        for seen in
            backends.iter().flat_map(Backend::seen).filter(|seen| seen.stdin.len() == body.len())
        {
            assert!(seen.stdin == body, "{length}");
        }
    }
}

#[test]
fn expect_100_and_413() {
    let (front, _backends) = front();
    // G05
    let mut client = Client::connect(front.address);
    client.request("POST", "/t.php", "Content-Length: 5\r\nExpect: 100-continue\r\n");
    assert_eq!(client.answer().status, 100);
    client.send("hello");
    assert!(client.answer().text().contains("stdin=5 "));
    // G06
    let mut client = Client::connect(front.address);
    client.send("POST /t.php HTTP/1.0\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert!(client.is_quiet());
    client.send("hello");
    assert_eq!(client.answer().status, 200);
    // G03, G07
    for lines in ["", "Expect: 100-continue\r\n"] {
        let mut client = Client::connect(front.address);
        client.request("POST", "/t.php", &format!("Content-Length: 3000000\r\n{lines}"));
        assert_eq!(client.answer().status, 413);
        assert!(client.is_closed());
    }
    // G04: the client goes on sending and still gets its answer
    let mut client = Client::connect(front.address);
    client.request("POST", "/t.php", "Transfer-Encoding: chunked\r\n");
    let chunk = vec![b'x'; 100_000];
    for _ in 0..30 {
        client.send(format!("{:x}\r\n", chunk.len()));
        client.send(&chunk);
        client.send("\r\n");
    }
    assert_eq!(client.answer().status, 413);
}

#[test]
fn an_answer_without_reading_the_body_is_passed_on() {
    // G14
    let (front, backends) = front();
    let bytes = [stdout("Status: 413 Too much\r\n\r\nno"), end()].concat();
    backends.iter().for_each(|backend| backend.set(Mode::AnswerUnread(bytes.clone())));
    let mut client = Client::connect(front.address);
    client.request("POST", "/t.php", "Content-Length: 2000000\r\n");
    client.send(vec![b'x'; 2_000_000]);
    let answer = client.answer();
    assert_eq!((answer.status, answer.text().as_str()), (413, "no"));
}

#[test]
fn smuggling_is_refused_and_closed() {
    let (front, backends) = front();
    let tail = "GET /t.php?smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    for lines in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
        "Content-Length: 4\r\nContent-Length: 5\r\n",
        "Content-Length: 4, 4\r\n",
        "Content-Length: +4\r\n",
        "Content-Length: 0x4\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding:\r\n chunked\r\n",
        "X: y\nTransfer-Encoding: chunked\r\n",
        "X: y\rTransfer-Encoding: chunked\r\n",
        "X: \0\r\n",
        "Host: b\r\n",
    ] {
        let mut client = Client::connect(front.address);
        client.send(format!("POST /t.php HTTP/1.1\r\nHost: a\r\n{lines}\r\n0\r\n\r\n{tail}"));
        assert_eq!(client.answer().status, 400, "{lines:?}");
        assert!(client.is_closed(), "{lines:?}");
    }
    for chunk in
        ["0x3\r\nabc\r\n", "3\nabc\r\n", "+3\r\nabc\r\n", "3\r\nabcd\r\n", "fffffffffffffffff\r\n"]
    {
        let mut client = Client::connect(front.address);
        client.request("POST", "/t.php", "Transfer-Encoding: chunked\r\n");
        client.send(format!("{chunk}0\r\n\r\n{tail}"));
        assert_eq!(client.answer().status, 400, "{chunk:?}");
        assert!(client.is_closed(), "{chunk:?}");
    }
    for target in ["/../etc/passwd", "/%2e%2e/x", "/a%00.txt", "/%zz"] {
        let mut client = Client::connect(front.address);
        client.request("GET", target, "");
        assert_eq!(client.answer().status, 400, "{target}");
        assert!(client.is_closed(), "{target}");
    }
    for bytes in
        [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], b"GET / HTTP/1.1\nHost: a\n\n"]
    {
        let mut client = Client::connect(front.address);
        client.send(bytes);
        assert_eq!(client.answer().status, 400);
    }
    assert!(backends.iter().all(|backend| backend.seen().is_empty()));
    let mut client = Client::connect(front.address);
    client.send(format!("GET /{} HTTP/1.1\r\n", "x".repeat(40_000)));
    assert_eq!(client.answer().status, 431);
}

#[test]
fn one_byte_at_a_time_is_enough() {
    let (front, _backends) = front();
    let mut client = Client::connect(front.address);
    let request = "POST /t.php HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                   3\r\nabc\r\n0\r\n\r\n";
    for byte in request.bytes() {
        client.send([byte]);
        std::thread::sleep(Duration::from_micros(200));
    }
    assert!(client.answer().text().contains("stdin=3 "));
}

#[test]
fn slow_clients_are_cut_and_delay_nobody() {
    let backends = Backend::pair();
    let php = backends.each_ref().map(|backend| backend.address);
    let front = Front::start_with(php, |config| config.request_limit = Duration::from_millis(400));
    let mut half: Vec<Client> = (0..50).map(|_| Client::connect(front.address)).collect();
    for client in &mut half {
        client.send("GET /range.txt HTTP/1.1\r\nHo");
    }
    // G09
    let mut body = Client::connect(front.address);
    body.request("POST", "/t.php", "Content-Length: 9\r\n");
    body.send("abc");
    let start = Instant::now();
    assert_eq!(get(front.address, "/range.txt").status, 200);
    assert!(start.elapsed() < Duration::from_millis(200));
    for client in &mut half {
        assert_eq!(client.answer().status, 408);
        assert!(client.is_closed());
    }
    assert_eq!(body.answer().status, 408);
    drop((half, body));
    front.wait("all are gone", |status| status.connections == 0);
}

#[test]
fn answers_of_scripts_become_http() {
    for (text, status, head, body) in [
        ("Status: 404 x\r\n\r\ngone", 404, "404 x", "gone"), // J01
        ("Status: abc\r\n\r\n", 502, "", ""),                // J04
        ("Status: 101 x\r\n\r\n", 502, "", ""),              // J05
        ("Location: /x\r\n\r\n", 302, "Location: /x", ""),   // J06
        ("no header end", 502, "", ""),                      // J09
        ("\r\nbody", 200, "", "body"),                       // J10
        ("A: b\nC: d\n\nbody", 200, "C: d", "body"),         // J11
        ("Content-Length: 4\r\n\r\n0123456789abc", 200, "Content-Length: 4", "0123"), // J25
        ("Transfer-Encoding: chunked\r\n\r\nx", 200, "Content-Length: 1", "x"), // J29
        ("X: a\rInjected: b\r\n\r\nx", 502, "", ""),         // J48
        // J39
        ("Set-Cookie: a\r\nSet-Cookie: b\r\n\r\n", 200, "Set-Cookie: a\r\nSet-Cookie: b", ""),
        ("Status: 503 busy\r\n\r\nlater", 503, "503 busy", "later"), // K30
    ] {
        let answer = answer_to(text);
        assert_eq!(answer.status, status, "{text:?}");
        assert!(answer.head.contains(head), "{text:?}: {}", answer.head);
        if status != 502 {
            assert_eq!((answer.text().as_str(), answer.is_whole), (body, true), "{text:?}");
        }
    }
}

#[test]
fn records_may_be_cut_anywhere() {
    let (front, backends) = front();
    let text = "Content-Type: text/plain\r\nX: y\r\n\r\nhello";
    // J13, J14, J15, J16, J17
    let bytewise: Vec<Vec<u8>> =
        text.bytes().map(|byte| padded(6, &[byte], 255)).chain([end()]).collect();
    let packets: Vec<Vec<u8>> =
        [stdout(text), end()].concat().into_iter().map(|byte| vec![byte]).collect();
    let with_stderr = [record(7, b"before"), stdout(&text[..30]), record(7, b"between")];
    let with_stderr = [with_stderr.concat(), stdout(&text[30..]), record(7, b"after"), end()];
    for pieces in [bytewise, packets, vec![with_stderr.concat()]] {
        backends.iter().for_each(|backend| backend.set(Mode::Raw(pieces.clone())));
        let mut client = Client::connect(front.address);
        for _ in 0..2 {
            let answer = client.get("/t.php");
            assert_eq!((answer.status, answer.text().as_str()), (200, "hello"));
        }
    }
}

#[test]
fn broken_records_are_502() {
    let (front, backends) = front();
    let mut other_version = [stdout("\r\nx"), end()].concat();
    other_version[0] = 2;
    let mut other_id = [stdout("\r\nx"), end()].concat();
    other_id[3] = 9;
    // J18, J19, J21, J23
    for pieces in [
        [record(7, b"oops"), end()].concat(),
        end(),
        other_version,
        other_id,
        b"HTTP/1.1 200 OK\r\n\r\n".to_vec(),
        stdout(&format!("X: {}\r\n\r\n", "y".repeat(70_000))), // J36
    ] {
        backends.iter().for_each(|backend| backend.set(Mode::Raw(vec![pieces.clone()])));
        let mut client = Client::connect(front.address);
        assert_eq!(client.get("/t.php").status, 502, "{:?}", &pieces[..pieces.len().min(40)]);
        assert_eq!(client.get("/range.txt").status, 200);
    }
}

#[test]
fn answers_without_a_body_leave_the_connection_clean() {
    let (front, backends) = front();
    let mut client = Client::connect(front.address);
    // J31, J32, J33
    for status in [204, 304] {
        backends.iter().for_each(|backend| backend.say(&format!("Status: {status} x\r\n\r\nbody")));
        assert_eq!(client.get("/t.php").status, status);
    }
    backends.iter().for_each(|backend| backend.say("X: y\r\n\r\nbody"));
    client.request("HEAD", "/t.php", "");
    assert_eq!(client.answer_to("HEAD").header("x"), Some("y"));
    assert_eq!(client.get("/range.txt").body.len(), 1000);
}

#[test]
fn a_broken_off_answer_never_looks_whole() {
    let (front, backends) = front();
    // J24
    backends.iter().for_each(|backend| backend.say("Content-Length: 100\r\n\r\n01234"));
    let mut client = Client::connect(front.address);
    let answer = client.get("/t.php");
    assert!(!answer.is_whole && answer.text() == "01234" && client.is_closed());
    // J50: the head is out already when the backend dies
    let pieces = vec![stdout("A: b\r\n\r\nbegin"), stdout("more"), Vec::new()];
    backends.iter().for_each(|backend| backend.set(Mode::Raw(pieces.clone())));
    let mut client = Client::connect(front.address);
    let answer = client.get("/t.php");
    assert!(answer.status == 200 && !answer.is_whole && client.is_closed());
    // J45
    let pieces = vec![stdout("A: b\r\n\r\nwhole")];
    backends.iter().for_each(|backend| backend.set(Mode::Raw(pieces.clone())));
    let mut client = Client::connect(front.address);
    let answer = client.get("/t.php");
    assert!(answer.status == 200 && answer.text() == "whole" && client.is_closed());
}

#[test]
fn a_long_answer_streams_with_back_pressure() {
    let (front, backends) = front();
    // J35: 5 MB, to a client that begins to read late
    let text = format!("X: y\r\n\r\n{}", "0123456789".repeat(500_000));
    backends.iter().for_each(|backend| backend.say(&text));
    let mut client = Client::connect(front.address);
    client.request("GET", "/t.php", "");
    std::thread::sleep(Duration::from_millis(300));
    let answer = client.answer();
    assert!(answer.is_whole && answer.body.len() == 5_000_000);
    // J40: the first event comes at once
    let pieces: Vec<Vec<u8>> =
        std::iter::once(stdout("Content-Type: text/event-stream\r\n\r\nfirst\n"))
            .chain((0..200).map(|_| stdout("x\n")))
            .chain([end()])
            .collect();
    backends.iter().for_each(|backend| backend.set(Mode::Raw(pieces.clone())));
    let start = Instant::now();
    client.request("GET", "/t.php", "");
    let mut byte = [0];
    std::io::Read::read_exact(&mut client.stream, &mut byte).unwrap();
    assert!(start.elapsed() < Duration::from_millis(250));
}

#[test]
fn a_client_that_leaves_frees_its_worker() {
    let (front, backends) = front();
    backends.iter().for_each(|backend| backend.set(Mode::Slow(Duration::from_secs(8))));
    let mut client = Client::connect(front.address);
    client.request("GET", "/t.php", "");
    front.wait("the request is at php", |status| status.in_flight == 1);
    drop(client);
    let start = Instant::now();
    front.wait("the worker is free", |status| status.in_flight == 0 && status.connections == 0);
    assert!(start.elapsed() < Duration::from_millis(500));
    while backends.iter().map(Backend::abandoned).sum::<usize>() == 0 {
        assert!(start.elapsed() < Duration::from_secs(2), "the upstream socket is closed");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn the_access_log_says_upstream_time_and_tries() {
    let backends = Backend::pair();
    let php = backends.each_ref().map(|backend| backend.address);
    let log = std::env::temp_dir().join(format!("tandem-web-log-{}", std::process::id()));
    let path = log.to_str().unwrap().to_owned();
    let front = Front::start_with(php, |config| config.access_log = path);
    let mut client = Client::connect(front.address);
    client.request("GET", "/t.php?a", "User-Agent: me\r\n");
    client.answer();
    client.get("/missing");
    drop(client);
    drop(front);
    let text = std::fs::read_to_string(&log).unwrap();
    std::fs::remove_file(&log).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("127.0.0.1 - - ["), "{text}");
    assert!(
        lines[0].contains("\"GET /t.php?a HTTP/1.1\" 200 ") && lines[0].contains("\"me\""),
        "{text}"
    );
    assert!(lines[0].contains(" one 0.0") || lines[0].contains(" two 0.0"), "{text}");
    assert!(lines[1].contains(" 404 ") && lines[1].ends_with(" - 0.000 0"), "{text}");
}

#[test]
fn a_half_closed_client_gets_its_file() {
    // H12
    let (front, _backends) = front();
    let mut client = Client::connect(front.address);
    client.send(
        "GET /large.bin HTTP/1.1\r\nHost: a\r\n\r\nGET /range.txt HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(client.answer().body.len(), 3_000_000);
    assert_eq!(client.answer().body.len(), 1000);
    assert!(client.is_closed());
}

#[test]
fn connections_beyond_the_limit_are_closed_and_the_rest_served() {
    let backends = Backend::pair();
    let php = backends.each_ref().map(|backend| backend.address);
    let front = Front::start_with(php, |config| config.connections_max = 3);
    let mut clients: Vec<Client> = (0..3).map(|_| Client::connect(front.address)).collect();
    for client in &mut clients {
        assert_eq!(client.get("/range.txt").status, 200);
    }
    assert!(Client::connect(front.address).is_closed());
    clients.pop();
    front.wait("there is room", |status| status.connections == 2);
    assert_eq!(get(front.address, "/t.php").status, 200);
}
