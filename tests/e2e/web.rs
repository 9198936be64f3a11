//! The fault matrix of facts/web.md 6: what visitors see while one host's php-fpm is in trouble.
//!
//! In: a pair in service, a fault of the second host's php-fpm. Out: the laws of `judge`.
//! TANDEM_WEB_FAULT_SECONDS is how long a fault lasts; the facts have 12 and 75.
//! Read first: facts/web.md 6.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::pair::{EXAMPLE, OUTSIDE_VIP, Pair, SETTLE_LIMIT};
use crate::php::{self, Whom};
use crate::world::{Link, Outcome, wait_until};
use crate::{check, flavour};

#[path = "web/load.rs"]
mod load;
#[path = "web/pools.rs"]
mod pools;

use load::{OpenLoop, Shot};

/// A GET may take this long, of which the page itself takes 200 ms.
const SLOW: Duration = Duration::from_secs(1);
/// After a fault, POSTs may be lost that were sent before it was known.
const KNOWN: Duration = Duration::from_millis(700);
/// Longer than tandem's own answer limit of 60 s.
const LIMIT: Duration = Duration::from_secs(65);

/// One row of the matrix: how the second host's pool is made ready for it, what happens to it, and
/// how it is mended.
struct Fault {
    name: &'static str,
    control_timeout_s: u8,
    hit: fn(&mut Pair) -> Outcome<()>,
    mend: fn(&mut Pair) -> Outcome<()>,
}

impl Fault {
    const fn new(name: &'static str, hit: fn(&mut Pair) -> Outcome<()>) -> Self {
        Self { name, control_timeout_s: 0, hit, mend: nothing }
    }

    const fn mended(mut self, mend: fn(&mut Pair) -> Outcome<()>) -> Self {
        self.mend = mend;
        self
    }

    const fn with_control_timeout(mut self, seconds: u8) -> Self {
        self.control_timeout_s = seconds;
        self
    }
}

const fn nothing(_: &mut Pair) -> Outcome<()> {
    Ok(())
}

fn start_again(pair: &mut Pair) -> Outcome<()> {
    pools::start(&mut pair.servers[1].host, 0)
}

fn send(pair: &Pair, signal: Signal, whom: Whom) -> Outcome<()> {
    php::signal(&pair.servers[1].host, signal, whom)
}

/// The rest of the machine stands still for two seconds while the second host is out: the first
/// one's pool is the last, and must not be given up.
fn hung_and_the_other_hiccups(pair: &mut Pair) -> Outcome<()> {
    send(pair, Signal::SIGSTOP, Whom::All)?;
    std::thread::sleep(Duration::from_millis(1500));
    php::signal(&pair.servers[0].host, Signal::SIGSTOP, Whom::All)?;
    std::thread::sleep(HICCUP);
    php::signal(&pair.servers[0].host, Signal::SIGCONT, Whom::All)
}

const MATRIX: &[Fault] = &[
    Fault::new("none", nothing),
    Fault::new("SIGKILL all", |pair| send(pair, Signal::SIGKILL, Whom::All)).mended(start_again),
    Fault::new("SIGTERM (stop)", |pair| send(pair, Signal::SIGTERM, Whom::Master))
        .mended(start_again),
    Fault::new("SIGQUIT (graceful)", |pair| send(pair, Signal::SIGQUIT, Whom::Master))
        .mended(start_again),
    Fault::new("SIGUSR2 reload, control timeout 0", |pair| {
        send(pair, Signal::SIGUSR2, Whom::Master)
    }),
    Fault::new("reload, control timeout 4 s", |pair| send(pair, Signal::SIGUSR2, Whom::Master))
        .with_control_timeout(4),
    Fault::new("workers SIGKILLed, master lives", |pair| {
        send(pair, Signal::SIGKILL, Whom::Workers)
    }),
    Fault::new("SIGSTOP (hung)", |pair| send(pair, Signal::SIGSTOP, Whom::All))
        .mended(|pair| send(pair, Signal::SIGCONT, Whom::All)),
    Fault::new("link down", |pair| pair.pull(1, &[Link::Inside]))
        .mended(|pair| pair.replug(1, &[Link::Inside])),
    Fault::new("silent host (packets dropped)", |pair| {
        pair.world.mute("server2", Link::Inside, true)
    })
    .mended(|pair| pair.world.mute("server2", Link::Inside, false)),
    Fault::new(HICCUP_ROW, hung_and_the_other_hiccups)
        .mended(|pair| send(pair, Signal::SIGCONT, Whom::All)),
];

const HICCUP_ROW: &str = "hung, and a hiccup of the other";
const HICCUP: Duration = Duration::from_secs(2);

fn target() -> SocketAddr {
    SocketAddr::from((OUTSIDE_VIP, 80))
}

/// How long a fault lasts.
fn lasting() -> Duration {
    let seconds = std::env::var("TANDEM_WEB_FAULT_SECONDS").ok();
    Duration::from_secs(seconds.and_then(|text| text.parse().ok()).unwrap_or(4))
}

/// A pair with both pools in use, from which the first host serves.
fn pair_with_pools() -> Outcome<Pair> {
    let mut pair = Pair::new(flavour())?;
    for number in 0..2 {
        pools::install(&mut pair.servers[number].host)?;
        pair.configure(number, &format!("{EXAMPLE}{}", pools::TANDEM))?;
        pair.start_tandem(number)?;
    }
    let settled = pair.wait_settled(0, SETTLE_LIMIT).and_then(|_| wait_both_up(&pair));
    settled.map_err(|why| format!("{why}\n{}", pair.logs()))?;
    Ok(pair)
}

fn wait_both_up(pair: &Pair) -> Outcome<()> {
    wait_until("the front uses both pools", Duration::from_secs(15), || {
        pair.servers[0].status().is_ok_and(|status| {
            let pools = status["web"]["php"].as_array().cloned().unwrap_or_default();
            pools.len() == 2 && pools.iter().all(|pool| pool["is_up"] == true)
        })
    })
    .map(drop)
}

#[test]
fn the_fault_matrix_costs_no_get_and_repeats_no_post() {
    let mut pair = pair_with_pools().unwrap_or_else(|why| panic!("{why}"));
    let mut first_id = 1;
    let mut complaints = Vec::new();
    let only = std::env::var("TANDEM_WEB_FAULT").unwrap_or_default();
    for fault in MATRIX.iter().filter(|fault| fault.name.contains(&only)) {
        // What a hiccup of the machine made slow is not slow a second time; what a fault of ours
        // made slow is. Nothing else is tried again.
        for is_last in [false, true] {
            let shots = run(&mut pair, fault, first_id);
            let judged = shots.and_then(|(shots, hit_at)| {
                first_id += u64::try_from(shots.len()).unwrap_or(0);
                judge(&pair, fault.name, &shots, hit_at)
            });
            match judged {
                // While neither pool ran, nobody could have answered.
                Ok(slow) if slow.is_empty() || fault.name == HICCUP_ROW => break,
                Ok(_) if !is_last => {}
                Ok(slow) => complaints.push(format!("{}: GETs were slow: {slow:?}", fault.name)),
                Err(why) => {
                    complaints.push(format!("{}: {why}", fault.name));
                    break;
                }
            }
        }
    }
    assert!(complaints.is_empty(), "{}\n{}", complaints.join("\n"), pair.logs());
}

fn run(pair: &mut Pair, fault: &Fault, first_id: u64) -> Outcome<(Vec<Shot>, Instant)> {
    let host = &mut pair.servers[1].host;
    if pools::control_timeout_s(host)? != fault.control_timeout_s {
        php::signal(host, Signal::SIGKILL, Whom::All)?;
        pools::start(host, fault.control_timeout_s)?;
    }
    wait_both_up(pair)?;
    let load = OpenLoop::start(&pair.client, target(), first_id, LIMIT)?;
    std::thread::sleep(Duration::from_secs(1));
    let hit_at = Instant::now();
    (fault.hit)(pair)?;
    std::thread::sleep(lasting());
    (fault.mend)(pair)?;
    std::thread::sleep(Duration::from_millis(1500));
    Ok((load.finish()?, hit_at))
}

/// GETs: none failed; returned are those that were slow. POSTs: none ran twice, and a lost one was
/// on its way when the fault came, so that nobody can know whether it ran.
fn judge(pair: &Pair, name: &str, shots: &[Shot], hit_at: Instant) -> Outcome<Vec<String>> {
    let (posts, gets): (Vec<&Shot>, Vec<&Shot>) = shots.iter().partition(|shot| shot.is_post);
    let failed = |shots: &[&Shot]| -> Vec<String> {
        let complaint = |shot: &&Shot| {
            let why = shot.complaint()?.to_owned();
            let since = shot.start.saturating_duration_since(hit_at).as_millis();
            Some(format!("{why} at +{since} ms after {} ms", shot.took().as_millis()))
        };
        shots.iter().filter_map(complaint).collect()
    };
    let slowest = |shots: &[&Shot]| shots.iter().map(|shot| shot.took()).max().unwrap_or_default();
    let slow: Vec<String> = gets
        .iter()
        .filter(|shot| shot.took() > SLOW)
        .map(|shot| {
            let since = shot.start.saturating_duration_since(hit_at).as_millis();
            format!("+{since} ms: {} ms", shot.took().as_millis())
        })
        .collect();
    let mut begun = BTreeMap::new();
    for id in pair.servers.iter().flat_map(|server| pools::begun(&server.host)) {
        *begun.entry(id).or_insert(0) += 1;
    }
    let twice = posts.iter().filter(|shot| begun.get(&shot.id).is_some_and(|&n| n > 1)).count();
    let stalled: Duration = shots.iter().map(|shot| shot.stalled).max().unwrap_or_default();
    println!(
        "{name:34} {:4} GET {} failed {} slow (max {:4} ms); {:4} POST {} failed {twice} twice \
         (max {:4} ms); machine stalled {} ms",
        gets.len(),
        failed(&gets).len(),
        slow.len(),
        slowest(&gets).as_millis(),
        posts.len(),
        failed(&posts).len(),
        slowest(&posts).as_millis(),
        stalled.as_millis(),
    );
    check(failed(&gets).is_empty(), || format!("GETs failed: {:?}", failed(&gets)))?;
    check(twice == 0, || format!("{twice} POSTs ran twice"))?;
    for shot in posts.iter().filter(|shot| shot.result.is_err()) {
        let is_known = matches!(shot.complaint(), Some("status 502" | "status 504"));
        let is_ambiguous = shot.start < hit_at + KNOWN + shot.stalled && shot.end > hit_at;
        check(is_known && is_ambiguous, || format!("POSTs failed: {:?}", failed(&posts)))?;
    }
    let ran = |shot: &&&Shot| shot.result.is_ok() && !begun.contains_key(&shot.id);
    check(posts.iter().filter(ran).count() == 0, || "a POST was answered and never ran".into())?;
    Ok(slow)
}

#[test]
fn a_page_that_kills_its_worker_costs_nobody_else_anything() {
    let pair = pair_with_pools().unwrap_or_else(|why| panic!("{why}"));
    let poison = |method: &str| {
        let request = format!(
            "{method} /poison.php HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\
             Content-Length: 0\r\n\r\n"
        );
        let ask = || crate::load::ask(target(), &request, Instant::now() + LIMIT);
        pair.client.on_network(ask).expect("the client's network")
    };
    let ran = || pair.servers.iter().map(|server| pools::poisoned(&server.host)).sum::<usize>();
    let load = OpenLoop::start(&pair.client, target(), 1, LIMIT).expect("load");
    std::thread::sleep(Duration::from_secs(1));
    let hit_at = Instant::now();
    let answer = poison("GET");
    assert!(answer.as_ref().is_err_and(|why| why.starts_with("status 502")), "{answer:?}");
    assert_eq!(ran(), 2, "a GET is tried on the other host, once");
    std::thread::sleep(Duration::from_secs(1));
    let answer = poison("POST");
    assert!(answer.as_ref().is_err_and(|why| why.starts_with("status 502")), "{answer:?}");
    assert_eq!(ran(), 3, "a POST is not tried again");
    std::thread::sleep(Duration::from_secs(1));
    let shots = load.finish().expect("the load ends");
    let failed: Vec<&Shot> = shots.iter().filter(|shot| shot.result.is_err()).collect();
    assert!(failed.is_empty(), "{failed:?}\n{}", pair.logs());
    let judged = judge(&pair, "poison", &shots, hit_at);
    let slow = judged.unwrap_or_else(|why| panic!("{why}\n{}", pair.logs()));
    assert!(slow.is_empty(), "{slow:?}");
}
