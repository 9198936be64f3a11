//! HTTPS: much in either direction, certificates that change, and what an idle client costs.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tandem::config::EXAMPLE;
use tandem::limits;
use tandem::os::serve_web::check_files;
use tandem::web::Config;

use crate::backend::Backend;
use crate::client::Client;
use crate::https::front;
use crate::keys::{Keys, Secured, secured};

#[test]
fn large_files_come_whole_in_part_and_slowly() {
    let keys = Keys::new();
    let (front, _backends) = front(&keys, |config| {
        config.request_limit = Duration::from_secs(1);
    });
    let [address, _] = front.ssl.unwrap();
    let large: Vec<u8> = (0..20_000_000u32).map(|n| (n / 1000).to_be_bytes()[3]).collect();
    std::fs::write(front.root().join("larger.bin"), &large).unwrap();
    let mut client = keys.client(address);
    assert!(client.get("/larger.bin").body == large);
    client.request("GET", "/larger.bin", "Range: bytes=7000001-17000000\r\n");
    let answer = client.answer();
    assert!(answer.status == 206 && answer.body == large[7_000_001..17_000_001]);
    client.request("HEAD", "/larger.bin", "");
    assert_eq!(client.answer_to("HEAD").header("content-length"), Some("20000000"));
    // Slower than the limit allows for all of it, but never silent for so long.
    client.request("GET", "/larger.bin", "Connection: close\r\n");
    let (start, mut all) = (Instant::now(), Vec::new());
    while client.stream.by_ref().take(500_000).read_to_end(&mut all).unwrap() > 0 {
        if start.elapsed() < Duration::from_millis(2500) {
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    assert!(start.elapsed() > Duration::from_secs(2), "{:?}", start.elapsed());
    assert!(all.ends_with(&large), "{} bytes", all.len());
    // Whoever takes nothing at all is cut, and not even said goodbye to.
    let mut client = keys.client(address);
    client.request("GET", "/larger.bin", "");
    front.wait("it is cut", |status| status.by_class[3] == 1 && status.connections == 0);
}

#[test]
fn a_large_upload_reaches_the_script() {
    let keys = Keys::new();
    let (front, backends) = front(&keys, |_| {});
    let [address, _] = front.ssl.unwrap();
    let body: Vec<u8> = (0..1_900_000u32).map(|n| (n / 7).to_le_bytes()[0]).collect();
    let mut client = keys.client(address);
    client.request("POST", "/t.php", &format!("Content-Length: {}\r\n", body.len()));
    client.send(&body);
    assert_eq!(client.answer().status, 200);
    client.request("POST", "/t.php", "Transfer-Encoding: chunked\r\n");
    client.send_chunked(&body, 100_000);
    assert_eq!(client.answer().status, 200);
    let seen: Vec<_> = backends.iter().flat_map(Backend::seen).collect();
    assert_eq!(seen.len(), 2);
    assert!(seen.iter().all(|seen| seen.stdin == body));
    client.request("POST", "/t.php", "Content-Length: 3000000\r\n");
    assert_eq!(client.answer().status, 413, "before the body");
}

/// The certificate that a new client is shown, once it is this one.
fn wait_for(keys: &Keys, address: SocketAddr, expected: &[u8]) {
    let trust = keys.trust(rustls::ALL_VERSIONS);
    let end = Instant::now() + limits::TLS_FILES_INTERVAL * 5;
    loop {
        let client = secured(&trust, address, "a.test");
        if client.stream.conn.peer_certificates().unwrap()[0].as_ref() == expected {
            return;
        }
        assert!(Instant::now() < end, "the old certificate is still shown");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn files_that_change_are_taken_if_they_are_good() {
    let keys = Keys::new();
    let (front, _backends) = front(&keys, |_| {});
    let [address, _] = front.ssl.unwrap();
    let mut before = keys.client(address);
    before.get("/range.txt");
    wait_for(&keys, address, &keys.sign("a", &["a.test"]));
    // A key that does not fit, then no certificate at all: what is shown stays.
    let good = keys.certificate("a");
    keys.sign("other", &["a.test"]);
    let other_key = std::fs::read_to_string(keys.path("other-key.pem")).unwrap();
    keys.write("a-key.pem", &other_key);
    std::thread::sleep(limits::TLS_FILES_INTERVAL * 5 / 2);
    wait_for(&keys, address, &good);
    keys.write("a.pem", "no certificate");
    std::thread::sleep(limits::TLS_FILES_INTERVAL * 5 / 2);
    wait_for(&keys, address, &good);
    // The other half of the pair comes, and fits.
    let other = std::fs::read_to_string(keys.path("other.pem")).unwrap();
    keys.write("a.pem", &other);
    wait_for(&keys, address, &keys.certificate("other"));
    assert_eq!(before.get("/range.txt").status, 200, "a connection keeps what it began with");
}

#[test]
fn a_reload_of_the_section_takes_other_certificates_at_once() {
    let keys = Keys::new();
    keys.sign("b", &["a.test"]);
    let (front, _backends) = front(&keys, |_| {});
    let [address, _] = front.ssl.unwrap();
    let mut before = keys.client(address);
    before.get("/range.txt");
    front.reload(|config| keys.show("b", config)).unwrap();
    let shown = |client: &Client<Secured>| {
        client.stream.conn.peer_certificates().unwrap()[0].clone().into_owned()
    };
    assert_eq!(shown(&keys.client(address)), keys.certificate("b"));
    for (what, adjust) in [
        ("nosuch", &(|config: &mut Config| keys.show("nosuch", config)) as &dyn Fn(&mut Config)),
        ("ssl_port changed", &|config| config.ssl_port = 8443),
        ("ssl_certificate changed", &|config| config.ssl_certificate = None),
    ] {
        let why = front.reload(adjust).unwrap_err();
        assert!(why.contains(what), "{why}");
    }
    assert_eq!(shown(&keys.client(address)), keys.certificate("b"), "nothing was taken");
    assert_eq!(before.get("/range.txt").status, 200);
}

#[test]
fn files_that_cannot_be_used_are_refused_and_old_ones_are_told() {
    let keys = Keys::new();
    let check = |adjust: &dyn Fn(&mut Config)| {
        let mut config = Config::default();
        keys.show("a", &mut config);
        adjust(&mut config);
        check_files(&config)
    };
    assert_eq!(check(&|_| {}), Ok(Vec::new()));
    keys.sign("b", &["b.test"]);
    let why = check(&|config| config.ssl_certificate_key = Some(keys.path("b-key.pem")));
    assert!(why.is_err_and(|why| why.contains("is not the private key of")));
    let why = check(&|config| {
        let text = "server_name = [\"b.test\"]\nssl_certificate = \"/no/such.pem\"\n\
                    ssl_certificate_key = \"/no/such-key.pem\"";
        config.sites = vec![toml::from_str(text).unwrap()];
    });
    assert!(why.is_err_and(|why| why.contains("web.ssl_certificate: /no/such.pem: No such file")));
    for (name, year, what) in
        [("old", 2020, "has expired: renew it"), ("new", 4000, "not valid yet")]
    {
        keys.sign_with(name, &["a.test"], |params| {
            params.not_before = rcgen::date_time_ymd(year, 1, 1);
            params.not_after = rcgen::date_time_ymd(year, 12, 31);
        });
        let complaints = check(&|config| keys.show(name, config)).unwrap();
        assert_eq!(complaints.len(), 1);
        assert!(complaints[0].contains(what) && complaints[0].contains(name), "{complaints:?}");
    }
}

#[test]
fn check_says_what_it_thinks_of_the_files() {
    let keys = Keys::new();
    keys.sign("b", &["b.test"]);
    keys.sign_with("old", &["a.test"], |params| {
        params.not_after = rcgen::date_time_ymd(2020, 1, 1)
    });
    let check = |lines: &str| {
        let path = keys.path("tandem.toml");
        let text = EXAMPLE.replacen("[web] ", &format!("[web]\n{lines}\n#"), 1);
        assert_ne!(text, EXAMPLE);
        std::fs::write(&path, text).unwrap();
        let output =
            Command::new(env!("CARGO_BIN_EXE_tandem")).args(["check", &path]).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    };
    let own = |certificate: &str, key: &str| {
        let (certificate, key) = (keys.path(certificate), keys.path(key));
        format!("ssl_certificate = {certificate:?}\nssl_certificate_key = {key:?}")
    };
    for (lines, code, what) in [
        (own("a.pem", "a-key.pem"), 0, "valid"),
        (own("old.pem", "old-key.pem"), 0, "old.pem: the certificate has expired: renew it"),
        (own("a.pem", "b-key.pem"), 2, "b-key.pem is not the private key of"),
        ("ssl_redirect = true".into(), 2, "nothing speaks HTTPS"),
    ] {
        let (ended, said) = check(&lines);
        assert!(ended == Some(code) && said.contains(what), "{ended:?} {said}");
    }
}

const CLIENTS: usize = 500;

/// The process whose memory is measured; its parent is the test below.
#[test]
#[ignore = "run by the test beside it"]
fn child() {
    let keys = Keys::new();
    let (front, _backends) = front(&keys, |_| {});
    let ssl = front.ssl.unwrap()[0];
    std::fs::write(front.root().join("medium.bin"), vec![1; 200_000]).unwrap();
    println!("addresses {} {ssl} {}", front.address, keys.path("ca.pem"));
    // The parent closes it when it is done.
    let _ = std::io::stdin().read(&mut [0]);
}

/// Resident memory of a process in bytes (proc(5), status).
fn resident(process: &Child) -> usize {
    let text = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

#[test]
fn an_idle_client_in_tls_is_small() {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "https_files::child", "--nocapture"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let line = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok)
        .find_map(|line| Some(line.split_once("addresses ")?.1.to_owned()))
        .expect("the child says where it listens");
    let mut words = line.split(' ');
    let [plain, ssl] = [(); 2].map(|()| words.next().unwrap().parse::<SocketAddr>().unwrap());
    let trust = crate::keys::believe(words.next().unwrap());
    let enter = || {
        let mut client = secured(&trust, ssl, "a.test");
        assert_eq!(client.get("/medium.bin").body.len(), 200_000);
        client.stream.sock
    };
    let first: Vec<TcpStream> = (0..20).map(|_| enter()).collect();
    let before = resident(&child);
    let in_tls: Vec<TcpStream> = (0..CLIENTS).map(|_| enter()).collect();
    let between = resident(&child);
    let without: Vec<Client> = (0..CLIENTS)
        .map(|_| {
            let mut client = Client::connect(plain);
            assert_eq!(client.get("/medium.bin").body.len(), 200_000);
            client
        })
        .collect();
    let after = resident(&child);
    let (secured, plain) = ((between - before) / CLIENTS, (after - between) / CLIENTS);
    println!("an idle client: {secured} bytes in TLS, {plain} without");
    assert!(secured < 8 * 1024, "{secured} bytes");
    drop((first, in_tls, without, child.stdin.take()));
    child.wait().unwrap();
}
