//! The console: on serial lines, on the host, for programs; while all is well and while it is not.
//!
//! In: a pair with a console on a line of each host. Out: what operators see.

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tandem::console::message::{self, Request};

use crate::host::{Host, text};
use crate::line::Line;
use crate::pair::{EXAMPLE, Pair, SETTLE_LIMIT};
use crate::world::{Outcome, wait_until};
use crate::{check, database, flavour};

const BINARY: &str = "/usr/local/sbin/tandem";
const PASSWORD: &str = "let me in";
const SOON: Duration = Duration::from_secs(10);

/// A pair of which each host has a line, and a law on it; the hosts' logs if it is broken.
fn on_lines(law: impl FnOnce(&mut Pair, &mut [Line; 2]) -> Outcome<()>) {
    let begin = || -> Outcome<(Pair, [Line; 2])> {
        let mut pair = Pair::new(flavour())?;
        let lines = [Line::new()?, Line::new()?];
        let hash = pair.servers[0].host.command(BINARY).and_then(|mut command| {
            let command = command.arg("hash").stdin(std::process::Stdio::piped());
            let mut child = command.stdout(std::process::Stdio::piped()).spawn().map_err(text)?;
            let mut stdin = child.stdin.take().ok_or("no standard input")?;
            writeln!(stdin, "{PASSWORD}").map_err(text)?;
            drop(stdin);
            let output = child.wait_with_output().map_err(text)?;
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        })?;
        let config = format!(
            "{EXAMPLE}\n[console]\ngroup = \"operators\"\ntty = [\"/run/line\"]\npassword = \
             \"{hash}\"\nsyslog = \"/run/devlog\"\nmetrics = \"127.0.0.1:9105\"\n"
        );
        for (number, line) in lines.iter().enumerate() {
            pair.configure(number, &config)?;
            let host = &pair.servers[number].host;
            let groups = std::fs::read_to_string(host.path("/etc/group")).unwrap_or_default();
            let groups = groups + "operators:x:4711:\n";
            std::fs::write(host.path("/etc/group"), groups).map_err(text)?;
            line.plug(host, "/run/line")?;
        }
        pair.settle()?;
        Ok((pair, lines))
    };
    let (mut pair, mut lines) = begin().unwrap_or_else(|why| panic!("{why}"));
    if let Err(why) = law(&mut pair, &mut lines) {
        panic!("{why}\n{}", pair.logs());
    }
}

fn log_in(line: &mut Line) -> Outcome<()> {
    line.wait_for("password: ", SOON)?;
    line.types(&format!("{PASSWORD}\r"))?;
    line.wait_for("> ", SOON).map(drop)
}

/// What a command says, both ways, and how it ended.
fn said(host: &Host, words: &[&str]) -> Outcome<(i32, String)> {
    let output = host.run_within(SOON, &[&[BINARY], words].concat())?;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.code().unwrap_or(-1), String::from_utf8_lossy(&said).into_owned()))
}

/// A whole hand-back is typed on one host's line while the other one's is watched.
#[test]
fn a_hand_back_is_typed_on_the_serial_line() {
    on_lines(|pair, [one, other]| {
        one.wait_for("password: ", SOON)?;
        one.types("a guess\r")?;
        one.wait_for("wrong; again in 1 s", SOON)?;
        log_in(one)?;
        let refused = said(&pair.servers[0].host, &["log", "--level", "warn"])?.1;
        check(refused.contains("/run/line: a wrong password"), || refused)?;
        log_in(other)?;

        pair.power_off(0)?;
        other.wait_for("promoting -> active", SETTLE_LIMIT)?;
        pair.power_on(0)?;
        // The line was plugged into a host that is no more.
        one.plug(&pair.servers[0].host, "/run/line")?;
        pair.wait_settled(1, SETTLE_LIMIT)?;
        one.screen.clear();
        log_in(one)?;
        one.types("sta\t\r")?;
        let mut seen = one.wait_for("child     node", SOON)?;
        seen += &one.wait_for("server1 standby> ", SOON)?;
        for words in ["server1  standby", "peer      server2  active", "php       server2  up"] {
            check(seen.contains(words), || format!("{words}: {seen}"))?;
        }
        check(seen.lines().count() <= 24, || format!("{} lines", seen.lines().count()))?;
        check(seen.lines().all(|line| line.len() <= 81), || seen.clone())?;

        // First no, with a word that was mistyped and mended.
        one.types("swichover\x1b[D\x1b[D\x1b[D\x1b[D\x1b[D\x1b[Dt\r")?;
        seen += &one.wait_for("Go on? [y/N] ", SOON)?;
        check(seen.contains("server2 gives its role to server1"), || seen.clone())?;
        one.types("n\r")?;
        seen += &one.wait_for("nothing was done", SOON)?;
        seen += &one.wait_for("server1 standby> ", SOON)?;
        one.types("\x10\r")?;
        seen += &one.wait_for("Go on? [y/N] ", SOON)?;
        one.types("y\r")?;
        seen +=
            &one.wait_for("now: server1 is active, server2 is standby; healthy", SETTLE_LIMIT)?;
        seen += &one.wait_for("server1 active> ", SOON)?;
        check(seen.contains("promoting -> active"), || seen.clone())?;
        let watched = other.wait_for("joining -> standby", SETTLE_LIMIT)?;
        println!("---- server1, typed\n{seen}\n---- server2, watched\n{watched}");
        pair.wait_settled(0, SETTLE_LIMIT).map(drop)
    });
}

/// Whoever interrupts a command stops watching it, and nothing else.
#[test]
fn an_interrupted_switchover_goes_on_to_its_end() {
    on_lines(|pair, [one, _]| {
        log_in(one)?;
        one.types("switchover --yes\r")?;
        one.wait_for("active -> demoting", SOON)?;
        one.types("\x03")?;
        one.wait_for("server1 ", SOON)?;
        pair.wait_settled(1, SETTLE_LIMIT).map(drop)
    });
}

/// Whatever an operator does to a line, it happens to the line.
#[test]
fn a_line_floods_breaks_and_is_left_and_the_pair_does_not_notice() {
    on_lines(|pair, [one, _]| {
        log_in(one)?;
        // Ctrl-C ends what runs and not the console.
        one.types("status --watch\r")?;
        one.wait_for("server1  active", SOON)?;
        one.types("\x03")?;
        one.wait_for("active> ", SOON)?;
        one.types("log --follow\r")?;
        one.wait_for("server1 active", SOON).ok();
        std::thread::sleep(Duration::from_millis(300));
        one.types("\x03")?;
        one.wait_for("active> ", SOON)?;
        // Zero bytes are breaks; the rest is noise of a cable.
        for _ in 0..200 {
            one.types(&"\0\u{7f}\x1b[\u{80}~~~~~~~~~~~~~~~~~~~".repeat(8))?;
            one.read_within(Duration::from_millis(5))?;
        }
        one.types("\x03")?;
        one.read_within(Duration::from_millis(200))?;
        one.screen.clear();
        one.types("\rversion\r")?;
        one.wait_for("tandem 0", SOON)?;
        one.types("\x04")?;
        one.wait_for("password: ", SOON)?;
        let peer = pair.servers[1].status()?;
        check(peer["peer"]["role"] == "active", || peer["peer"].to_string())?;
        let log = said(&pair.servers[1].host, &["log", "-n", "1000"])?.1;
        check(!log.contains("is silent"), || log)
    });
}

/// A hundred that ask, one that reads nothing, fifty that begin to ask.
#[test]
fn a_hundred_consoles_delay_no_advertisement() {
    on_lines(|pair, _| {
        let socket = pair.servers[0].host.live_path("/run/tandem.sock")?;
        let mut deaf = UnixStream::connect(&socket).map_err(text)?;
        let follow = Request::Log { count: u32::MAX, level: message::Level::Info, follow: true };
        deaf.write_all(&message::encode(&follow)).map_err(text)?;
        // And some that never come to the end of what they ask.
        let begin = || -> Outcome<UnixStream> {
            let mut half = UnixStream::connect(&socket).map_err(text)?;
            half.write_all(&message::encode(&Request::Status)[..3]).map_err(text)?;
            Ok(half)
        };
        let _half_asked = (0..50).map(|_| begin()).collect::<Outcome<Vec<_>>>()?;
        let until = Instant::now() + Duration::from_secs(4);
        let ask = || -> Outcome<u32> {
            let mut answers = 0;
            while Instant::now() < until {
                let mut stream = UnixStream::connect(&socket).map_err(text)?;
                stream.write_all(&message::encode(&Request::Status)).map_err(text)?;
                let mut answer = Vec::new();
                stream.read_to_end(&mut answer).map_err(text)?;
                let response: message::Response =
                    message::decode(&answer).map_err(|why| why.to_string())?;
                check(matches!(response, message::Response::Status(_)), || {
                    format!("{response:?}")
                })?;
                answers += 1;
                std::thread::sleep(Duration::from_millis(50));
            }
            Ok(answers)
        };
        let answers: Vec<Outcome<u32>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..100).map(|_| scope.spawn(ask)).collect();
            threads.into_iter().map(|it| it.join().expect("no panic")).collect()
        });
        let answers = answers.into_iter().sum::<Outcome<u32>>()?;
        println!("{answers} answers to 100 consoles in 4 s");
        // A database that hangs keeps nobody from seeing that it does.
        let host = &pair.servers[1].host;
        host.signal(database::PID_FILE, Signal::SIGSTOP)?;
        let since = Instant::now();
        let told: Outcome<Vec<_>> = (0..20).map(|_| said(host, &["status"])).collect();
        let each = since.elapsed() / 20;
        host.signal(database::PID_FILE, Signal::SIGCONT)?;
        check(told?.iter().all(|(_, text)| text.starts_with("server2")), || "no status".into())?;
        println!("a status takes {each:?}, nsenter and timeout included");
        check(each < Duration::from_millis(500), || format!("a status takes {each:?}"))?;
        check(answers > 400, || format!("{answers} answers"))?;
        // Half an interval late would be a finding, and silence a note.
        let log = said(&pair.servers[1].host, &["log", "-n", "1000"])?.1;
        check(!log.contains("is silent"), || log)?;
        let status = pair.servers[0].status()?;
        check(!status["findings"].to_string().contains("loop-late"), || {
            status["findings"].to_string()
        })
    });
}

/// Notes outlive the daemon that made them, and are told where they are wanted.
#[test]
fn notes_survive_a_crash_and_go_to_syslog() {
    on_lines(|pair, _| {
        let host = &pair.servers[1].host;
        let place = host.live_path("/run/devlog")?;
        let syslog = UnixDatagram::bind(&place).map_err(text)?;
        syslog.set_read_timeout(Some(SOON)).map_err(text)?;
        let before = said(host, &["log"])?.1;
        check(before.contains("started as server2"), || before.clone())?;
        pair.servers[1].signal_node(Signal::SIGKILL)?;
        let host = &pair.servers[1].host;
        wait_until("the crash is in the log of the next daemon", SOON, || {
            said(host, &["log"]).is_ok_and(|(_, log)| {
                let after = log.split("the node daemon died").nth(1);
                after.is_some_and(|after| after.contains("started as server2"))
            })
        })?;
        let log = said(host, &["log", "-n", "1000"])?.1;
        check(log.contains(before.lines().next().unwrap_or("?")), || log)?;
        let restarts = pair.servers[1].status()?["children"][0]["restarts"].clone();
        check(restarts == 1, || restarts.to_string())?;
        let mut line = String::new();
        // The guard's word comes first.
        for words in [" node-died - the node daemon died (SIGKILL)", " started - started as"] {
            let mut bytes = [0; 2048];
            while !line.contains(words) {
                let count = syslog.recv(&mut bytes).map_err(text)?;
                line = String::from_utf8_lossy(&bytes[..count]).into_owned();
                check(line.starts_with('<') && line.contains(">1 20"), || line.clone())?;
            }
            println!("{line}");
        }
        // No daemon at all: what it left is still told.
        pair.stop_tandem(1)?;
        let host = &pair.servers[1].host;
        let (code, log) = said(host, &["log", "-n", "3"])?;
        check(code == 1 && log.contains("leaving"), || format!("{code}: {log}"))?;
        let (code, status) = said(host, &["status"])?;
        check(code == 3 && status.contains("is `tandem run` running"), || status.clone())?;
        check(status.contains("epoch 1") && status.contains("leaving"), || status)
    });
}

/// Who may do what, and what is told to whom.
#[test]
fn the_group_looks_and_root_acts() {
    on_lines(|pair, _| {
        let host = &pair.servers[0].host;
        let as_operator = |words: &[&str]| -> Outcome<(bool, String)> {
            let user = ["setpriv", "--reuid=65534", "--regid=4711", "--clear-groups", BINARY];
            let output = host.run(&[&user, words].concat())?;
            let said = [output.stdout, output.stderr].concat();
            Ok((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
        };
        let (is_good, status) = as_operator(&["status"])?;
        check(is_good && status.contains("server1  active"), || status)?;
        let (is_good, refusal) = as_operator(&["switchover", "--yes"])?;
        check(!is_good && refusal.contains("only root"), || refusal)?;
        let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", BINARY];
        let output = host.run(&[&nobody[..], &["status"]].concat())?;
        let refusal = String::from_utf8_lossy(&output.stderr).into_owned();
        check(refusal.contains("Permission denied") && refusal.contains("group"), || refusal)?;

        let (code, config) = said(host, &["config"])?;
        check(code == 0 && config.contains("# server2 has the same"), || config.clone())?;
        check(config.contains("queue_limit = \"10s\""), || config.clone())?;
        let archive = said(host, &["support", "/run/support.tar.gz"])?.1;
        check(archive.contains("no passwords"), || archive)?;
        let all = host.read(&["tar", "-xzOf", "/run/support.tar.gz"])?;
        for secret in ["Xp29at5F37", "o67DhtaW", "$6$", "change this"] {
            check(!all.contains(secret) && !config.contains(secret), || secret.to_owned())?;
        }
        check(all.contains("promoting -> active") && all.contains("[console]"), || all)?;
        let (code, trace) = said(host, &["trace", "--seconds", "2"])?;
        check(code == 0, || trace.clone())?;
        for words in ["out beacon", "in  beacon", "VRRPv2 type 1, vrid 50, prio 254", "packets in"]
        {
            check(trace.contains(words), || format!("{words}: {trace}"))?;
        }
        for section in ["vip", "link", "db", "web", "sql"] {
            let (code, text) = said(host, &[section])?;
            check(code == 0 && text.lines().all(|line| line.len() < 80), || text.clone())?;
            println!("$ tandem {section}\n{text}");
        }
        let (code, refusal) = said(host, &["switchover"])?;
        check(code == 2 && refusal.contains("--yes"), || refusal)
    });
}

/// The text is what a strict parser of OpenMetrics takes.
#[test]
fn metrics_are_openmetrics() {
    const READ: &str = "
import sys, urllib.request
from prometheus_client.openmetrics.parser import text_string_to_metric_families
answer = urllib.request.urlopen('http://127.0.0.1:9105/metrics', timeout=5)
print(answer.headers['Content-Type'])
for family in text_string_to_metric_families(answer.read().decode()):
    for sample in family.samples:
        print(sample.name, dict(sample.labels), sample.value)
";
    on_lines(|pair, _| {
        let host = &pair.servers[0].host;
        let told = host.read(&["python3", "-c", READ])?;
        for words in [
            "application/openmetrics-text; version=1.0.0",
            "tandem_role {'tandem_role': 'active'} 1",
            "tandem_vip_held {'address': '10.96.153.239/24'} 1",
            "tandem_php_up {'host': 'server2'} 1",
            "tandem_database_state {'tandem_database_state': 'source'} 1",
        ] {
            check(told.contains(words), || format!("{words}: {told}"))?;
        }
        let refused = host.read(&[
            "python3",
            "-c",
            "import socket\ns = socket.create_connection(('127.0.0.1', 9105))\n\
             s.sendall(b'POST / HTTP/1.1\\r\\n\\r\\n')\nprint(s.recv(999))",
        ])?;
        check(refused.contains("405 Method Not Allowed"), || refused)
    });
}

/// What is made from the table of verbs is what its readers take.
#[test]
fn the_manual_page_and_the_completion_are_sound() {
    on_lines(|pair, _| {
        let host = &pair.servers[0].host;
        let lint = host.run(&["sh", "-c", "tandem man | mandoc -T lint -W warning"])?;
        let told = String::from_utf8_lossy(&lint.stdout).into_owned();
        check(lint.status.success(), || told)?;
        let page = host.read(&["sh", "-c", "tandem man | mandoc -T ascii | col -b"])?;
        check(page.contains("EXIT STATUS") && page.contains("--discard"), || page)?;
        let complete = "source <(tandem completion bash); complete_it() { COMP_WORDS=(tandem \
                        \"$@\"); COMP_CWORD=$#; _tandem; echo \"${COMPREPLY[*]}\"; }; \
                        complete_it hold o; complete_it swi";
        let words = host.read(&["bash", "-c", complete])?;
        check(words.trim() == "on off\nswitchover", || words)
    });
}
