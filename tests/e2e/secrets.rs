//! Secrets in files: made on one host, taken over by the other with a code, good for a pair.
//!
//! In: two hosts whose configuration names files that are not there. Out: laws of the files and of
//! what is refused. Must not: know a secret. Read first: src/secrets.rs.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Output;
use std::time::Duration;

use crate::host::{Host, text};
use crate::pair::{EXAMPLE, Pair, SETTLE_LIMIT};
use crate::world::{Outcome, wait_until};
use crate::{check, flavour};

const FILES: [&str; 4] = ["/etc/pair/key", "/etc/pair/vrrp", "/etc/pair/repl", "/etc/pair/console"];
const OFFER: &str = "offer";

/// The example with these secrets in files.
fn config() -> Outcome<String> {
    let [key, vrrp, repl, console] = FILES.map(|path| format!("{{ file = \"{path}\" }}"));
    let mut config = format!("{EXAMPLE}\n[console]\npassword = {console}\n");
    for (old, new) in [
        ("key = \"change this: any long text, the same on both hosts\"", format!("key = {key}")),
        ("password = \"3489\"", format!("password = {vrrp}")),
        ("replication_password = \"o67DhtaW\"", format!("replication_password = {repl}")),
    ] {
        check(config.contains(old), || format!("the example has no {old}"))?;
        config = config.replacen(old, &new, 1);
    }
    Ok(config)
}

#[test]
fn secrets_made_on_one_host_are_taken_over_by_the_other() {
    let mut pair = Pair::new(flavour()).unwrap_or_else(|why| panic!("{why}"));
    let job = |pair: &mut Pair| {
        make(pair)?;
        take(pair)?;
        refuse(pair)?;
        for number in 0..2 {
            pair.start_tandem(number)?;
        }
        pair.wait_settled(0, SETTLE_LIMIT).map(drop)
    };
    job(&mut pair).unwrap_or_else(|why| panic!("{why}\n{}", pair.logs()));
}

fn secrets(host: &Host, words: &[&str]) -> Outcome<(Output, String)> {
    let words: Vec<&str> = ["tandem", "secrets"].iter().chain(words).copied().collect();
    let output = host.run(&words)?;
    let said = [output.stdout.as_slice(), &output.stderr].concat();
    Ok((output, String::from_utf8_lossy(&said).into_owned()))
}

fn says(host: &Host, words: &[&str], code: i32, expected: &str) -> Outcome<String> {
    let (output, said) = secrets(host, words)?;
    check(output.status.code() == Some(code) && said.contains(expected), || {
        format!("secrets {words:?}: {:?}, without {expected:?}: {said}", output.status)
    })?;
    Ok(said)
}

fn files(host: &Host) -> Vec<Option<String>> {
    FILES.map(|path| fs::read_to_string(host.path(path)).ok()).to_vec()
}

fn make(pair: &Pair) -> Outcome<()> {
    let config = config()?;
    for number in 0..2 {
        pair.configure(number, &config)?;
    }
    let host = &pair.servers[0].host;
    let checked = host.run(&["tandem", "check", crate::pair::CONFIG])?;
    let why = String::from_utf8_lossy(&checked.stderr).into_owned();
    check(why.contains("/etc/pair/") && why.contains("is missing"), || format!("check: {why}"))?;
    says(host, &[], 1, "/etc/pair/key  peer.key: is missing")?;
    says(host, &["offer"], 1, "is missing: `tandem secrets make` makes it")?;
    check(files(host) == vec![None; 4], || "looking made a file".into())?;

    says(host, &["make"], 0, "/etc/pair/console  console.password: made\n    it is ")?;
    let made = files(host);
    check(made.iter().all(Option::is_some), || format!("made: {made:?}"))?;
    for path in FILES {
        let mode = fs::metadata(host.path(path)).map_err(text)?.permissions().mode() & 0o7777;
        check(mode == 0o600, || format!("{path} has mode {mode:o}"))?;
    }
    says(host, &["make"], 0, "all of them are there already")?;
    says(host, &[], 0, "/etc/pair/key  peer.key: is there")?;
    check(files(host) == made, || "a second make changed a file".into())?;
    host.read(&["tandem", "check", crate::pair::CONFIG]).map(drop)
}

/// The code that server1 tells while it waits.
fn offered(pair: &mut Pair) -> Outcome<String> {
    let before = pair.servers[0].host.log_text(OFFER).len();
    pair.servers[0].host.start(OFFER, &["tandem", "secrets", "offer"])?;
    let mut code = String::new();
    wait_until("a code is told", Duration::from_secs(5), || {
        let told = pair.servers[0].host.log_text(OFFER).split_off(before);
        code = told.split_once("take ").and_then(|(_, it)| it.lines().next()).unwrap_or("").into();
        code.len() == 23
    })?;
    Ok(code)
}

fn ends(pair: &mut Pair, is_well: bool, expected: &str) -> Outcome<()> {
    let mut ended = None;
    wait_until("the offer is over", Duration::from_secs(5), || {
        ended = pair.servers[0].host.ended(OFFER);
        ended.is_some()
    })?;
    let told = pair.servers[0].host.log_text(OFFER);
    check(ended.is_some_and(|it| it.success() == is_well) && told.contains(expected), || {
        format!("the offer ended with {ended:?}, without {expected:?}: {told}")
    })
}

fn take(pair: &mut Pair) -> Outcome<()> {
    const WRONG: &str = "00000-00000-00000-00000";
    says(
        &pair.servers[1].host,
        &["take", WRONG],
        1,
        "nobody offers secrets at 192.168.3.100:7423",
    )?;
    says(&pair.servers[1].host, &["take", "00000"], 2, "a code has 20 letters, not 5")?;

    let code = offered(pair)?;
    for _ in 0..2 {
        says(&pair.servers[1].host, &["take", WRONG], 1, "the code is wrong, or void by now")?;
    }
    // Who is not the other host is not heard, however often.
    for _ in 0..5 {
        let read = pair.servers[0].host.on_network(|| {
            let mut stream = TcpStream::connect("192.168.3.100:7423")?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            stream.read(&mut [0; 32])
        })?;
        check(matches!(read, Ok(0)), || format!("a stranger is answered: {read:?}"))?;
    }
    // Nor does the other host end it with less than a conversation.
    for sent in [&b""[..], &[7; 20], &[7; 33], &[0xff; 64]] {
        let said = pair.servers[1].host.on_network(|| {
            let mut stream = TcpStream::connect("192.168.3.100:7423")?;
            stream.write_all(sent)
        })?;
        said.map_err(text)?;
    }
    check(files(&pair.servers[1].host) == vec![None; 4], || "a wrong code brought a file".into())?;
    says(
        &pair.servers[1].host,
        &["take", &code.to_lowercase()],
        0,
        "this host has taken /etc/pair/",
    )?;
    ends(pair, true, "server2 has taken /etc/pair/console, /etc/pair/key")?;
    let [one, other] = [0, 1].map(|number| files(&pair.servers[number].host));
    check(one == other, || "the hosts have other secrets".into())?;
    says(&pair.servers[1].host, &["take", &code], 1, "nobody offers secrets")?;

    offered(pair)?;
    for _ in 0..3 {
        says(&pair.servers[1].host, &["take", WRONG], 1, "the code is wrong, or void by now")?;
    }
    ends(pair, false, "three times with another code")
}

/// What is there is not replaced.
fn refuse(pair: &mut Pair) -> Outcome<()> {
    let path = pair.servers[1].host.path("/etc/pair/key");
    let own = fs::read(&path).map_err(text)?;
    fs::remove_file(pair.servers[1].host.path("/etc/pair/vrrp")).map_err(text)?;
    fs::write(&path, "another key of this host\n").map_err(text)?;
    let before = files(&pair.servers[1].host);
    let code = offered(pair)?;
    let code: Vec<&str> = code.split('-').collect();
    let words: Vec<&str> = ["take"].into_iter().chain(code).collect();
    says(&pair.servers[1].host, &words, 1, "/etc/pair/key is here already, and is another one")?;
    ends(pair, false, "the other host: /etc/pair/key is here already")?;
    check(files(&pair.servers[1].host) == before, || "a refusal changed a file".into())?;

    fs::write(&path, own).map_err(text)?;
    let code = offered(pair)?;
    says(&pair.servers[1].host, &["take", &code], 0, "this host has taken /etc/pair/vrrp.")?;
    ends(pair, true, "server2 has taken /etc/pair/vrrp.")
}
