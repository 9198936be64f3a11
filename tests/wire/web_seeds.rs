//! Seeds of the web front's targets: requests, bodies, records, answers, paths, ranges.
//!
//! In: the name of a target. Out: its inputs. Must not: depend on anything else.
//! Read first: `seeds`; `web` and `web_content` for what the first bytes mean.

use tandem::web::fastcgi::{self, Kind};

fn behind(control: &[u8], bytes: impl AsRef<[u8]>) -> Vec<u8> {
    [control, bytes.as_ref()].concat()
}

pub fn of(target: &str) -> Vec<Vec<u8>> {
    match target {
        "web_request" => requests(),
        "web_chunked" => BODIES
            .iter()
            .flat_map(|body| [[0, 3], [7, 1], [16, 2]].map(|control| behind(&control, body)))
            .collect(),
        "web_fastcgi" => records(),
        "web_answer" => {
            let controls = [0x34, 0x10, 0x3c, 0x21, 0x36, 0x08];
            let one = |text| controls.map(|control| behind(&[control, 6], text));
            ANSWERS.iter().flat_map(one).collect()
        }
        "web_path" => {
            let finds = [[0; 8], [2, 0, 2, 0, 2, 0, 2, 0], [3, 2, 0, 2, 2, 0, 2, 2], [2; 8]];
            let one = |path: &&str| {
                finds
                    .iter()
                    .zip([0u8, 7, 10, 15])
                    .map(|(finds, control)| behind(&[&[control][..], finds].concat(), path))
                    .collect::<Vec<_>>()
            };
            PATHS.iter().flat_map(one).collect()
        }
        "web_range" => {
            let sizes = [[0; 8], [0, 0, 0, 0, 0, 0, 3, 0xe8], [0xff; 8]];
            let one = |range| sizes.map(|size| behind(&[&[0][..], &size].concat(), range));
            RANGES.iter().flat_map(one).collect()
        }
        other => panic!("no target {other}"),
    }
}

const REQUESTS: [&str; 18] = [
    "GET /t.php HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST /t.php/x?y=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi",
    "POST /t.php HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "GET /a.txt HTTP/1.1\r\nHost: a\r\nRange: bytes=2-5\r\n\r\n",
    "HEAD /a.txt HTTP/1.1\r\nHost: a\r\nIf-None-Match: *\r\n\r\n",
    "GET /in.php HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "POST /a.txt HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1f4\r\n",
    "PUT /t.php HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
    "PUT /a.txt HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
    "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET http://b/d?x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "POST /t.php HTTP/1.1\r\nHost: a\r\nContent-Length: 201\r\n\r\n",
    "GET /x/../a.txt HTTP/1.1\r\nHost: [::1]:80\r\nCookie: a=1\r\nCookie: b\r\nProxy: x\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
    "\r\nGET /%00 HTTP/1.1\r\nHost: a\r\n\r\n",
    "\x16\x03\x01\x02\x00\x01",
];

/// Each alone, each behind another one and before a third, and behind a proxy's header.
fn requests() -> Vec<Vec<u8>> {
    let get = REQUESTS[0];
    let alone = REQUESTS.iter().map(|text| behind(&[0], text));
    let between = REQUESTS.iter().map(|text| behind(&[6], [get, text, get].concat()));
    let proxied = REQUESTS.iter().map(|text| behind(&[0x41], [PROXY, text].concat()));
    alone.chain(between).chain(proxied).collect()
}

const PROXY: &str = "PROXY TCP4 10.0.0.1 10.0.0.2 1000 80\r\n";

const BODIES: [&str; 6] = [
    "3\r\nabc\r\n0\r\n\r\nGET",
    "3;a=\"b\"\r\nabc\r\n00A\r\n0123456789\r\n0\r\nX: y\r\nZ: \r\n\r\n",
    "FFFFFFFFFFFFFFF\r\nabc",
    "1\nx\r\n0\r\n\r\n",
    "2\r\nabc\r\n0\r\n\r\n",
    "0123456789012345678901234567890123456789",
];

fn records() -> Vec<Vec<u8>> {
    let mut answer = vec![7];
    fastcgi::emit_stream(&mut answer, Kind::Stderr, b"oops");
    fastcgi::emit_stream(&mut answer, Kind::Stdout, b"A: b\r\n\r\nhello");
    fastcgi::emit_end(&mut answer, Kind::Stdout);
    fastcgi::emit_stream(&mut answer, Kind::EndRequest, &[0; 8]);
    let mut wrong = answer.clone();
    fastcgi::emit_stream(&mut wrong, Kind::Params, b"x");
    // Names and values: short, around 128, beyond a record, around its end.
    let long =
        [[&[0, 2][..], b"ab", &[127], &[1; 127]].concat(), behind(&[1, 1, b'x', 64], [2; 64])];
    let huge = [behind(&[3, 0, 4], [3; 4]), behind(&[3, 3, 1, 1, 1, 5], [4; 5])].concat();
    vec![answer, wrong, behind(&[0], long.concat()), behind(&[1], huge.repeat(3))]
}

const ANSWERS: [&str; 15] = [
    "A: b\r\r\nC: \x0cd\n\nx",
    "Content-Type: text/html\r\n\r\nhello, hello, hello",
    "Status: 404 Gone fishing\nA: b\n\nhello world",
    "Content-Length: 4\r\nContent-Type: text/plain\r\n\r\n0123456789abc",
    "Content-Length: 40\r\n\r\nshort",
    "Status: 304\r\nETag: \"x\"\r\n\r\n",
    "Location: /x\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\r\n",
    "X-Accel-Redirect: /a.txt\r\nContent-Type: a/b\r\n\r\n",
    "Transfer-Encoding: chunked\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx",
    "HTTP/1.1 200 OK\r\nA: b\r\n\r\nbody",
    "ETag: \"x\"\r\nContent-Type: text/css\r\nVary: a\r\n\r\nabcdefghijklmnop",
    "\r\nno header at all",
    "A: b\rc\r\nDate: x\r\nDate: y\r\nServer: z\r\n\r\n",
    "Status: 100 Continue\r\n\r\n",
    "Content-Encoding: br\r\nCache-Control: No-Transform\r\n\r\nxyz",
];

const PATHS: [&str; 16] = [
    "/",
    "/a.txt",
    "/d/",
    "/d",
    "/t.php/info/x.php",
    "/a.php~",
    "/.git/config",
    "/%2e%2e/x",
    "/a//b/./c/..",
    "/up/x.php",
    "/.well-known/x",
    "/a.PHP",
    "/x.phtml",
    "/a%00b",
    "/%2561",
    "/a.html%3f",
];

const RANGES: [&str; 14] = [
    "bytes=0-0",
    "bytes=990-",
    "bytes=-10",
    "bytes=-0",
    "bytes=5-2",
    "bytes=0-1,5-6",
    "Bytes= 1-2",
    "bytes=5-99999999999999999999999",
    "bytes=99999999999999999999999-",
    "bytes=-5000",
    "bytes=-99999999999999999999999",
    "lines=0-1",
    "bytes=",
    "bytes=-",
];
