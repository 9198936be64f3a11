//! Behind another proxy: X-Forwarded-For and -Proto, the PROXY protocol.

use crate::backend::Backend;
use crate::client::Client;
use crate::front::Front;

fn front(has_proxy_header: bool, trusted: &str) -> Front {
    let backends = Backend::pair();
    Front::start_with(backends.each_ref().map(|backend| backend.address), |config| {
        config.set_real_ip_from = vec![trusted.parse().unwrap()];
        config.proxy_protocol = has_proxy_header;
    })
}

const LINES: &str = "X-Forwarded-For: 6.6.6.6, 192.0.2.9\r\nX-Forwarded-Proto: https\r\n";

#[test]
fn forwarded_headers_count_from_trusted_proxies_only() {
    for (trusted, address, scheme) in
        [("127.0.0.0/8", "192.0.2.9", "https"), ("10.0.0.0/8", "127.0.0.1", "http")]
    {
        let front = front(false, trusted);
        let mut client = Client::connect(front.address);
        client.request("GET", "/t.php", LINES);
        let text = client.answer().text();
        assert!(text.contains(&format!("REMOTE_ADDR={address}\n")), "{text}");
        assert!(text.contains(&format!("REQUEST_SCHEME={scheme}\n")), "{text}");
        assert_eq!(text.contains("HTTPS=on\n"), scheme == "https");
        // The next request on the connection is another client's.
        let text = client.get("/t.php").text();
        assert!(text.contains("REMOTE_ADDR=127.0.0.1\n") && !text.contains("HTTPS="), "{text}");
    }
}

#[test]
fn the_proxy_protocol_names_the_client_of_the_whole_connection() {
    let front = front(true, "127.0.0.0/8");
    let v1 = b"PROXY TCP4 192.0.2.7 192.0.2.8 1234 443\r\n".to_vec();
    let v2 = [
        &b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c"[..],
        &[192, 0, 2, 7, 192, 0, 2, 8, 4, 210, 1, 187],
    ]
    .concat();
    for header in [v1, v2] {
        let mut client = Client::connect(front.address);
        let (start, rest) = header.split_at(9);
        client.send(start);
        std::thread::sleep(std::time::Duration::from_millis(20));
        client.send(rest);
        for _ in 0..2 {
            let text = client.get("/t.php").text();
            for line in ["REMOTE_ADDR=192.0.2.7", "REMOTE_PORT=1234", "SERVER_PORT=443"] {
                assert!(text.contains(&format!("{line}\n")), "{text}");
            }
        }
        let mut client = Client::connect(front.address);
        client.send([header.as_slice(), b"GET /range.txt HTTP/1.1\r\nHost: a\r\n\r\n"].concat());
        assert_eq!(client.answer().status, 200);
    }
    let mut client = Client::connect(front.address);
    client.send("GET /range.txt HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.is_closed(), "it has to be there");
}
