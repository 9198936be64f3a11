//! Reload of the configuration, and exchange of the binary, under load: no request fails.

use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::host::text;
use crate::load::Record;
use crate::pair::{EXAMPLE, GUARD_PID, OUTSIDE_VIP, Pair, SETTLE_LIMIT};
use crate::story::failures;
use crate::world::{Outcome, wait_until};
use crate::{check, has_finding, on_a_pair};

const BINARY: &str = "/usr/local/sbin/tandem";

/// The example and one more redirect, in its last section.
fn with_redirect(to: &str) -> String {
    format!("{EXAMPLE}redirect = [{{ from = \"/moved\", to = \"{to}\" }}]\n")
}

/// Where the pair sends whoever asks for what moved.
fn moved(pair: &Pair) -> Outcome<Option<String>> {
    let request = "GET /moved HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let target = (OUTSIDE_VIP, 80).into();
    let limit = std::time::Instant::now() + Duration::from_secs(5);
    let answer = pair.client.on_network(|| crate::load::exchange(target, request, limit))??;
    Ok(answer.header("location").next().map(str::to_owned))
}

/// What `tandem reload` says, good or bad.
fn reload(pair: &Pair, number: usize) -> Outcome<(bool, String)> {
    let output = pair.servers[number].host.run(&[BINARY, "reload"])?;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8_lossy(&said).trim().to_owned()))
}

fn none_failed(records: &[Record]) -> Outcome<()> {
    check(records.len() > 100, || "no load".into())?;
    check(records.iter().all(Record::is_good), || failures(records))
}

#[test]
fn a_configuration_is_read_again_and_no_request_fails() {
    on_a_pair(|pair| {
        let load = pair.load()?;
        check(moved(pair)?.is_none(), || "nothing moved yet".into())?;
        (0..2).try_for_each(|number| pair.configure(number, &with_redirect("/there")))?;
        let (is_good, said) = reload(pair, 0)?;
        check(is_good && said.contains("both hosts must have one text"), || said)?;
        let there = moved(pair)?;
        check(there.as_deref() == Some("/there"), || format!("{there:?}"))?;
        wait_until("the other host's text is another one", Duration::from_secs(5), || {
            has_finding(pair, 0, "configuration")
        })?;
        pair.servers[1].host.signal(GUARD_PID, Signal::SIGHUP)?;
        wait_until("both have one text", Duration::from_secs(20), || {
            !has_finding(pair, 0, "configuration") && !has_finding(pair, 1, "configuration")
        })?;

        let interval = with_redirect("/x").replacen("interval = \"1s\"", "interval = \"2s\"", 1);
        pair.configure(0, &interval)?;
        let (is_good, said) = reload(pair, 0)?;
        check(!is_good && said.contains("[vrrp]") && said.contains("restart"), || said)?;
        pair.configure(0, &with_redirect("/x").replacen("port = 80", "port = 81", 1))?;
        let (is_good, said) = reload(pair, 0)?;
        check(!is_good && said.contains("web.port"), || said)?;
        pair.configure(0, "[web\n")?;
        let (is_good, said) = reload(pair, 0)?;
        check(!is_good && said.contains("line 1"), || said)?;
        let there = moved(pair)?;
        check(there.as_deref() == Some("/there"), || format!("what was refused: {there:?}"))?;
        none_failed(&load.finish()?)
    });
}

/// The standby's binary first, then the roles change places, then the other one's.
#[test]
fn the_binary_is_exchanged_and_no_request_fails() {
    on_a_pair(|pair| {
        let load = pair.load()?;
        for number in [1, 0] {
            let path = pair.servers[number].host.path("/sbin/tandem");
            let beside = path.with_extension("new");
            fs::copy(&path, &beside).map_err(text)?;
            fs::rename(&beside, &path).map_err(text)?;
            pair.stop_tandem(number)?;
            pair.start_tandem(number)?;
            pair.wait_settled(1 - number, SETTLE_LIMIT)?;
            if number == 1 {
                pair.servers[0].host.read(&[BINARY, "switchover", "--yes"])?;
                pair.wait_settled(1, SETTLE_LIMIT)?;
            }
        }
        none_failed(&load.finish()?)
    });
}
