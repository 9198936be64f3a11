//! Laws of the import: any bytes, errors with their place, no secret in the report, the scenario.
//!
//! In: the cases, whole and broken. Out: nothing but assertions.

use tandem::config::{Config, EXAMPLE};
use tandem::import::{Host, import};
use tandem::time::Rng;

use super::{KEY, cases, hosts, last, outcome, sorted};

#[test]
fn the_scenario_gives_the_example() {
    let imported = Config::parse(&outcome("scenario").toml).expect("is complete");
    let example = Config::parse(EXAMPLE).expect("parses");
    for (is, wanted) in imported.hosts.iter().zip(&example.hosts) {
        assert_eq!(format!("{is:?}"), format!("{wanted:?}"));
    }
    for (is, wanted) in imported.links.iter().zip(&example.links) {
        assert_eq!(format!("{is:?}"), format!("{wanted:?}"));
    }
    assert_eq!(format!("{:?}", imported.vrrp), format!("{:?}", example.vrrp));
    let password = |config: &Config| config.vrrp.password.as_ref().map(|it| it.reveal().to_owned());
    assert_eq!(password(&imported), password(&example));
    assert_eq!(format!("{:?}", imported.repl), format!("{:?}", example.repl));
    let secrets = |config: &Config| {
        [&config.repl.password, &config.repl.replication_password].map(|it| it.reveal().to_owned())
    };
    assert_eq!(secrets(&imported), secrets(&example));
    assert_eq!(imported.sql.listen, example.sql.listen);
    let root = |config: &Config| {
        let user = config.sql.users.iter().find(|it| it.name == "root").expect("root");
        user.password.reveal().to_owned()
    };
    assert_eq!(root(&imported), root(&example));
    let web = |config: &Config| {
        let web = &config.web;
        (web.port, web.root.clone(), web.index.clone(), web.php_port, web.sites.len())
    };
    assert_eq!(web(&imported), web(&example));
}

fn broken(text: &str, random: &mut Rng) -> String {
    let mut below = |bound: usize| {
        usize::try_from(random.below(u64::try_from(bound).expect("fits"))).expect("fits")
    };
    const MARKS: &[u8] = b"{}()[];\"'\\#!=:,@$/* \n\t\0\xff9-.%";
    let mut bytes = text.as_bytes().to_vec();
    for _ in 0..=below(6) {
        let place = below(bytes.len());
        let mark = MARKS[below(MARKS.len())];
        match below(4) {
            0 => bytes.truncate(place),
            1 => bytes.insert(place.min(bytes.len()), mark),
            2 if !bytes.is_empty() => drop(bytes.remove(place.min(bytes.len() - 1))),
            _ if !bytes.is_empty() => {
                let last = bytes.len() - 1;
                bytes[place.min(last)] = mark;
            }
            _ => {}
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn broken_files_never_panic_and_always_give_toml() {
    let mut random = Rng::new(1);
    for folder in sorted(&cases()) {
        let whole = hosts(&last(&folder));
        for _ in 0..20 {
            let mut hosts = whole.clone();
            for text in hosts.iter_mut().flat_map(|host| host.files.values_mut()) {
                *text = broken(text, &mut random);
            }
            if let Ok(outcome) = import(&hosts, KEY) {
                let parsed = outcome.toml.parse::<toml::Table>();
                assert!(parsed.is_ok(), "{}: {parsed:?}\n{}", folder.display(), outcome.toml);
                if outcome.is_complete {
                    let checked = Config::parse(&outcome.toml);
                    assert!(checked.is_ok(), "{}: {checked:?}", folder.display());
                }
            }
        }
    }
}

#[test]
fn deep_nesting_and_includes_of_oneself_end() {
    for (path, text) in [
        ("/etc/nginx/nginx.conf", "a {".repeat(100_000)),
        ("/etc/nginx/nginx.conf", "include nginx.conf; include *.conf;".to_owned()),
        ("/etc/keepalived/keepalived.conf", "include keepalived.conf\n".repeat(3)),
        ("/etc/proxysql.cnf", "a = (".repeat(100_000)),
    ] {
        let files = [(path.to_owned(), text)].into_iter().collect();
        let outcome = import(&[Host { name: "a".into(), files }], KEY).expect("is read");
        assert!(outcome.report.contains("Not understood"), "{path}: {}", outcome.report);
    }
}

#[test]
fn a_syntax_error_has_its_file_and_line() {
    for (path, text, expected) in [
        ("/etc/nginx/nginx.conf", "http {\n  server {\n    listen 80\n  }\n}", "nginx.conf:4: "),
        ("/etc/nginx/nginx.conf", "http {\n  gzip on;\n", "nginx.conf:1: } that closes \"http\""),
        (
            "/k/keepalived.conf",
            "vrrp_instance a {\n priority high\n}",
            "keepalived.conf:2: priority",
        ),
        ("/k/keepalived.conf", "}\n", "keepalived.conf:1: no } here"),
        ("/etc/my.cnf", "[mysqld\n", "my.cnf:1: ]"),
        ("/etc/my.cnf", "[mysqld]\nport = many\n", "my.cnf:2: port"),
        ("/etc/proxysql.cnf", "a =\n{\n b = \"c\n}", "proxysql.cnf:3: \""),
        ("/etc/haproxy.cfg", "bind *:80\n", "haproxy.cfg:1: a section"),
    ] {
        let files = [(path.to_owned(), text.to_owned())].into_iter().collect();
        let outcome = import(&[Host { name: "a".into(), files }], KEY).expect("is read");
        assert!(!outcome.is_complete, "{path}");
        assert!(outcome.report.contains(expected), "{expected}: {}", outcome.report);
    }
}

#[test]
fn the_report_has_no_password() {
    for case in ["scenario", "proxysql-docs", "mycnf-client", "ka-auth-long", "ng-access"] {
        let outcome = outcome(case);
        for secret in ["Xp29at5F37", "o67DhtaW", "s3cret", "qtyU1btXOo074", "longpassw"] {
            assert!(!outcome.report.contains(secret), "{case}: {secret}\n{}", outcome.report);
        }
    }
}

#[test]
fn hosts_that_cannot_be_told_apart_are_refused() {
    let host = Host { name: "a".into(), ..Host::default() };
    assert!(import(&[host.clone(), host.clone()], KEY).is_err());
    assert!(import(&[], KEY).is_err());
    assert!(import(&[host], KEY).expect_err("no files").contains("keepalived"));
}
