//! A load of FastCGI requests, as a web server in front makes them; it tells what came of it in
//! wrk's words.
//!
//! In: an address, `kept` or `fresh` connections, how many, seconds. Out: requests, rate, p99.
//! Must not: count a request whose answer was not the responder's.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::Outcome;

pub(crate) const KEPT: &str = "kept";
pub(crate) const FRESH: &str = "fresh";

/// BEGIN_REQUEST, PARAMS as nginx sends them, STDIN without a body.
fn request(is_kept: bool) -> Vec<u8> {
    const PARAMS: [(&str, &str); 24] = [
        ("QUERY_STRING", ""),
        ("REQUEST_METHOD", "GET"),
        ("CONTENT_TYPE", ""),
        ("CONTENT_LENGTH", ""),
        ("SCRIPT_NAME", "/null.php"),
        ("REQUEST_URI", "/null.php"),
        ("DOCUMENT_URI", "/null.php"),
        ("DOCUMENT_ROOT", "/var/www/html"),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("REQUEST_SCHEME", "http"),
        ("GATEWAY_INTERFACE", "CGI/1.1"),
        ("SERVER_SOFTWARE", "nginx/1.22.1"),
        ("REMOTE_ADDR", "192.0.2.1"),
        ("REMOTE_PORT", "50000"),
        ("SERVER_ADDR", "192.0.2.2"),
        ("SERVER_PORT", "80"),
        ("SERVER_NAME", "a.test"),
        ("REDIRECT_STATUS", "200"),
        ("SCRIPT_FILENAME", "/var/www/html/null.php"),
        ("HTTP_HOST", "a.test"),
        ("HTTP_USER_AGENT", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101"),
        ("HTTP_ACCEPT", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
        ("HTTP_ACCEPT_ENCODING", "gzip, deflate, br"),
        ("HTTP_COOKIE", "session=0123456789abcdef0123456789abcdef"),
    ];
    let mut params = Vec::new();
    for (name, value) in PARAMS {
        params.extend([name.len(), value.len()].map(|length| u8::try_from(length).unwrap_or(0)));
        params.extend_from_slice(name.as_bytes());
        params.extend_from_slice(value.as_bytes());
    }
    let [high, low] = u16::try_from(params.len()).unwrap_or(0).to_be_bytes();
    let mut out = vec![1, 1, 0, 1, 0, 8, 0, 0, 0, 1, u8::from(is_kept), 0, 0, 0, 0, 0];
    out.extend_from_slice(&[1, 4, 0, 1, high, low, 0, 0]);
    out.extend_from_slice(&params);
    out.extend_from_slice(&[1, 4, 0, 1, 0, 0, 0, 0, 1, 5, 0, 1, 0, 0, 0, 0]);
    out
}

pub(crate) fn load(words: &[String]) -> Outcome<()> {
    let [address, kind, connections, seconds] = words else { return Err("four words".into()) };
    let number = |word: &String| word.parse::<u64>().map_err(|error| error.to_string());
    let (connections, seconds) = (number(connections)?, number(seconds)?);
    let request = request(kind == KEPT);
    let start = Instant::now();
    let end = start + Duration::from_secs(seconds);
    let threads: Vec<_> = (0..connections)
        .map(|_| {
            let (address, request, is_kept) = (address.clone(), request.clone(), kind == KEPT);
            std::thread::spawn(move || ask(&address, &request, is_kept, end))
        })
        .collect();
    let mut times = Vec::new();
    for thread in threads {
        let asked = thread.join().map_err(|_| "a thread of the load")?;
        match asked {
            Ok(more) => times.extend(more),
            Err(error) => println!("Socket errors: {error}"),
        }
    }
    let elapsed = start.elapsed();
    times.sort_unstable();
    let p99 = times.get(times.len() * 99 / 100).copied().unwrap_or_default();
    println!("  99% {}us\n  {} requests in {elapsed:?}", p99.as_micros(), times.len());
    let count = f64::from(u32::try_from(times.len()).unwrap_or(u32::MAX));
    println!("Requests/sec: {:.1}", count / elapsed.as_secs_f64());
    Ok(())
}

/// One request after the other: how long each took.
fn ask(
    address: &str,
    request: &[u8],
    is_kept: bool,
    end: Instant,
) -> std::io::Result<Vec<Duration>> {
    let mut times = Vec::new();
    let mut kept = None;
    let mut bytes = [0; 4096];
    while Instant::now() < end {
        let start = Instant::now();
        let mut stream = match kept.take() {
            Some(stream) => stream,
            None => TcpStream::connect(address)?,
        };
        stream.set_nodelay(true)?;
        stream.write_all(request)?;
        let mut seen = 0;
        // END_REQUEST is the last record: 8 bytes of header and 8 of content.
        while seen < 16 || bytes.get(seen - 16..seen - 14) != Some(&[1, 3]) {
            let count = stream.read(bytes.get_mut(seen..).unwrap_or_default())?;
            if count == 0 {
                return Err(std::io::Error::other("closed without an answer"));
            }
            seen += count;
        }
        if bytes.get(8..20) != Some(b"Content-Type") {
            return Err(std::io::Error::other("an answer that is not the responder's"));
        }
        times.push(start.elapsed());
        if is_kept {
            kept = Some(stream);
        }
    }
    Ok(times)
}
