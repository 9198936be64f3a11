//! Debian's nginx and Apache before the FastCGI port, with real php-fpm 8.2 behind it.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::client::{Client, get};
use crate::front::Front;
use crate::group::Group;
use crate::php_fpm::{Fpm, a_million_bytes_arrive, under_load};

struct WebServer {
    address: SocketAddr,
    _group: Group,
}

/// All that stands in a request's way: web server, port, two pools.
struct Chain {
    server: WebServer,
    front: Front,
    pools: [Fpm; 2],
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Nginx,
    Apache,
}

/// nginx keeps eight connections to the port, more than there are workers.
fn nginx(base: &str, root: &str, address: SocketAddr, port: SocketAddr) -> String {
    format!(
        "daemon off; worker_processes 1; user root; pid {base}/nginx.pid;\n\
         error_log {base}/nginx.log;\n\
         events {{ worker_connections 256; }}\n\
         http {{ access_log off; client_body_temp_path {base}/b; fastcgi_temp_path {base}/f;\n\
         proxy_temp_path {base}/p; uwsgi_temp_path {base}/u; scgi_temp_path {base}/s;\n\
         client_max_body_size 8m;\n\
         upstream php {{ server {port}; keepalive 8; }}\n\
         server {{ listen {address}; root {root};\n\
         location ~ \\.php(/|$) {{ include /etc/nginx/fastcgi_params;\n\
         fastcgi_split_path_info ^(.+?\\.php)(/.*)$;\n\
         fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name;\n\
         fastcgi_param PATH_INFO $fastcgi_path_info;\n\
         fastcgi_pass php; fastcgi_keep_conn on; }} }} }}\n"
    )
}

/// With `enablereuse` Apache keeps its connections too.
fn apache(base: &str, root: &str, address: SocketAddr, port: SocketAddr) -> String {
    let modules = ["mpm_event", "authz_core", "proxy", "proxy_fcgi"]
        .map(|name| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n"))
        .concat();
    format!(
        "ServerRoot {base}\nDefaultRuntimeDir {base}\nPidFile {base}/apache.pid\n\
         Listen {address}\nServerName a.test\nErrorLog {base}/apache.log\n{modules}\
         User www-data\nGroup www-data\nThreadsPerChild 16\nMaxRequestWorkers 16\n\
         StartServers 1\nServerLimit 1\nDocumentRoot {root}\n\
         <Directory {root}>\nRequire all granted\n</Directory>\n\
         ProxyPassMatch ^/(.*\\.php(/.*)?)$ fcgi://{port}{root}/$1 enablereuse=on\n"
    )
}

impl WebServer {
    fn start(kind: Kind, front: &Front) -> Option<Self> {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let base = front.tree.base.to_str().unwrap();
        let root = front.root().to_str().unwrap();
        let path = front.tree.base.join("server.conf");
        let file = path.to_str().unwrap();
        let (config, words) = match kind {
            Kind::Nginx => (nginx(base, root, address, front.port), vec!["nginx", "-c", file]),
            Kind::Apache => {
                let words = vec!["apache2", "-D", "FOREGROUND", "-f", file];
                (apache(base, root, address, front.port), words)
            }
        };
        std::fs::write(&path, config).unwrap();
        let group = Group::start(&words, address, Duration::from_secs(20))?;
        Some(Self { address, _group: group })
    }
}

impl Chain {
    fn start(kind: Kind, workers: usize) -> Option<Self> {
        let pools = [Fpm::start(workers)?, Fpm::start(workers)?];
        let php = pools.each_ref().map(|pool| pool.address);
        let status = pools.each_ref().map(|pool| Some(pool.status));
        let front = Front::start_asking(php, status, |config| config.php_requests_max = 50);
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&front.tree.base, open).unwrap();
        front.tree.write(
            "info.php",
            "<?php $b = file_get_contents('php://input'); echo $_SERVER['REQUEST_METHOD'], ' ',
             strlen($b), ' ', md5($b), ' ', $_SERVER['PATH_INFO'] ?? '';",
        );
        front.tree.write("sleep.php", "<?php usleep(50000); echo 'slept';");
        front.tree.write("gone.php", "<?php http_response_code(404); echo 'not here';");
        front
            .tree
            .write("big.php", "<?php for ($i = 0; $i < 500; $i++) echo str_repeat('x', 10000);");
        front.wait("both pools answer", |status| status.peers.iter().all(|peer| peer.is_up));
        let server = WebServer::start(kind, &front)?;
        Some(Self { server, front, pools })
    }
}

fn pages(kind: Kind) {
    let Some(chain) = Chain::start(kind, 4) else { return };
    let mut client = Client::connect(chain.server.address);
    let answer = client.get("/t.php");
    assert_eq!((answer.status, answer.text().as_str()), (200, "hello"), "{}", answer.head);
    let empty = "d41d8cd98f00b204e9800998ecf8427e";
    assert_eq!(client.get("/info.php/a/b").text(), format!("GET 0 {empty} /a/b"));
    let answer = client.get("/gone.php");
    assert_eq!((answer.status, answer.text().as_str()), (404, "not here"));
    // The script that is not there is php-fpm's to tell.
    assert_eq!(client.get("/none.php").status, 404);
    client.request("HEAD", "/t.php", "");
    assert_eq!(client.answer_to("HEAD").status, 200);
    client.request("POST", "/info.php", "Content-Length: 5\r\n");
    client.send("hello");
    assert_eq!(client.answer().text(), "POST 5 5d41402abc4b2a76b9719d911017c592 ");
    a_million_bytes_arrive(&mut client);
    assert_eq!(client.get("/big.php").body.len(), 5_000_000);
    assert!(chain.front.status().requests >= 9, "{:?}", chain.front.status());
}

/// facts/web.md, fact 1: before a php-fpm itself, eight kept connections would leave four waiting.
fn kept_connections(kind: Kind) {
    let Some(chain) = Chain::start(kind, 4) else { return };
    let mut clients: Vec<Client> = (0..8).map(|_| Client::connect(chain.server.address)).collect();
    for round in 0..5 {
        let start = Instant::now();
        for client in &mut clients {
            client.request("GET", "/sleep.php", "");
        }
        for client in &mut clients {
            assert_eq!(client.answer().text(), "slept", "round {round}");
        }
        // Two pools of three at once, so two turns of 50 ms.
        println!("{kind:?}, round {round}: 8 at once in {:?}", start.elapsed());
        assert!(start.elapsed() < Duration::from_secs(1));
    }
    let status = chain.front.status();
    assert!(status.connections >= 8, "the web server keeps its connections: {status:?}");
    assert_eq!(status.in_flight, 0, "and none of them a worker");
    // Past the port, each pool has all its workers.
    for pool in &chain.pools {
        let start = Instant::now();
        assert!(pool.answers_ping(), "a worker is free");
        assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
    }
}

fn failover(kind: Kind) {
    let Some(chain) = Chain::start(kind, 6) else { return };
    for (what, signal) in [("SIGKILL", Signal::SIGKILL), ("SIGSTOP", Signal::SIGSTOP)] {
        let Some(chain) = Chain::start(kind, 6) else { return };
        let what = format!("{kind:?}, {what}");
        let slowest = under_load(chain.server.address, &what, || chain.pools[0].signal(signal));
        assert!(slowest < Duration::from_millis(1500), "{slowest:?}");
        assert!(!chain.front.status().peers[0].is_up);
    }
    chain.pools.iter().for_each(|pool| pool.signal(Signal::SIGKILL));
    // A worker that is about to end may still take a connection.
    while chain.pools.iter().any(|pool| TcpStream::connect(pool.address).is_ok()) {
        std::thread::sleep(Duration::from_millis(5));
    }
    let answer = get(chain.server.address, "/t.php");
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
}

#[test]
fn pages_through_nginx() {
    pages(Kind::Nginx);
}

#[test]
fn pages_through_apache() {
    pages(Kind::Apache);
}

#[test]
fn kept_connections_of_nginx_hold_no_worker() {
    kept_connections(Kind::Nginx);
}

#[test]
fn kept_connections_of_apache_hold_no_worker() {
    kept_connections(Kind::Apache);
}

#[test]
fn a_lost_pool_fails_no_get_of_nginx() {
    failover(Kind::Nginx);
}

#[test]
fn a_lost_pool_fails_no_get_of_apache() {
    failover(Kind::Apache);
}
