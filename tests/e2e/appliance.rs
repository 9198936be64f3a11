//! The appliance: two machines from one disk image do what the pair of hosts does.
//!
//! Read first: `machine`; image/build. Everything is emulated on two cores, so the limits are five
//! times what a quiet machine measures, and the figures are printed.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::check;
use crate::figures::{lost, seconds};
use crate::host::{Host, inside, text};
use crate::load::{self, Kind, Load, Rates, Record};
use crate::machine::{self, Firmware, Machine};
use crate::pair::{CLIENT, EXAMPLE, OUTSIDE_VIP};
use crate::php::static_text;
use crate::world::{Outcome, World, wait_until};

const NAMES: [&str; 2] = ["server1", "server2"];
const FILES: [(&str, &str); 4] = [
    ("install.php", include_str!("app/install.php")),
    ("read.php", include_str!("app/read.php")),
    ("rows.php", include_str!("app/rows.php")),
    ("write.php", include_str!("app/write.php")),
];
/// What two emulated machines carry beside themselves.
const RATES: Rates = Rates { statics: 2, reads: 2, writes: 4 };
/// From power-on to a page that reads the database, first boot included: 15 s on a quiet machine.
const SERVICE_LIMIT: Duration = Duration::from_secs(75);
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
/// 10 s of the module, 2 s since it was fed, and a machine under load.
const WATCHDOG_LIMIT: Duration = Duration::from_secs(30);
const FAILOVER_LIMIT: Duration = Duration::from_secs(20);

#[test]
fn two_machines_from_one_image_fail_over_and_hand_back() {
    on_stage(&[Firmware::Bios, Firmware::Uefi], Stage::play);
}

/// A disk as it was flashed, and then a configuration with a mistake: both are mended on the line.
#[test]
fn a_machine_that_cannot_serve_says_why_and_is_mended_on_its_line() {
    on_stage(&[Firmware::Bios], |stage| mend(&mut stage.machines[0]));
}

/// What is written is never what runs: a machine serves whenever its power comes back, after a cut
/// in an update, in a reset, in its first boot. `cargo test --test e2e -- --ignored power_may_be`
#[test]
#[ignore = "twenty boots take ten minutes"]
fn power_may_be_cut_at_any_moment() {
    on_stage(&[Firmware::Bios], Stage::cut);
}

/// `cargo test --test e2e -- --ignored data_partition`
#[test]
#[ignore = "the alarm looks every half minute"]
fn a_data_partition_that_fills_up_is_told_before_it_hurts() {
    on_stage(&[Firmware::Bios], Stage::fill);
}

#[test]
#[ignore = "four boots take a minute"]
fn a_data_partition_that_is_damaged_is_mended_on_the_line() {
    on_stage(&[Firmware::Bios], |stage| damage(&mut stage.machines[0]));
}

/// Plays a story with a machine of each firmware, switched off; shows the lines if it is broken.
fn on_stage(firmwares: &[Firmware], story: impl FnOnce(&mut Stage) -> Outcome<()>) {
    let mut stage = Stage::new(firmwares).unwrap_or_else(|why| panic!("{why}"));
    if let Err(why) = story(&mut stage) {
        let logs: String = stage.machines.iter().map(|it| it.log(160)).collect();
        panic!("{why}\n{logs}");
    }
}

fn damage(machine: &mut Machine) -> Outcome<()> {
    machine.put("host.toml", b"host = \"server1\"\n")?;
    machine.put("tandem.toml", EXAMPLE.as_bytes())?;
    serves(machine)?;
    shut_down(machine)?;
    machine.damage("/tandem")?;
    machine.power_on()?;
    let told = machine.wait_for("does not serve> ", SERVICE_LIMIT)?;
    check(told.contains("/usr/sbin/e2fsck"), || format!("it says: {told}"))?;
    machine.types("repair\r")?;
    machine.wait_for("repaired: `reboot` tries again", SERVICE_LIMIT)?;
    machine.answers("does not serve> ", "reboot", ANSWER_LIMIT)?;
    machine.wait_for_end(ANSWER_LIMIT)?;
    serves(machine)?;
    shut_down(machine)?;

    // Beyond repair, there is the other host.
    machine.damage("/tandem")?;
    machine.power_on()?;
    machine.answers("does not serve> ", "reset --everything", SERVICE_LIMIT)?;
    machine.answers("Type server1 to go on: ", "server1", ANSWER_LIMIT)?;
    machine.wait_for_end(ANSWER_LIMIT)?;
    let told = serves(machine)?;
    check(told.contains("data partition made"), || format!("it says: {told}"))
}

/// In order, so that no journal mends what is damaged then. How long it took.
fn shut_down(machine: &mut Machine) -> Outcome<Duration> {
    machine.types("shutdown\r")?;
    machine.answers("[y/N] ", "y", ANSWER_LIMIT)?;
    machine.wait_for_end(SERVICE_LIMIT)
}

/// Powers it on and waits until it serves, as far as one machine alone can; what it said by then.
fn serves(machine: &mut Machine) -> Outcome<String> {
    machine.power_on()?;
    let served = machine.wait_for("answers", SERVICE_LIMIT).and_then(|told| {
        machine.wait_for("server1 joining> ", SERVICE_LIMIT)?;
        Ok(told)
    });
    if served.is_err() {
        // For the picture of the line that a broken story ends with.
        machine.types("log -n 100\r")?;
        let _all_that_comes = machine.wait_for("no such words", ANSWER_LIMIT);
    }
    served
}

/// The example with two of its secrets in files.
fn with_secret_files() -> Outcome<String> {
    let mut config = EXAMPLE.to_owned();
    for (name, file) in [("key", "key"), ("replication_password", "repl")] {
        let line = EXAMPLE.lines().find(|line| line.starts_with(&format!("{name} = ")));
        let line = line.ok_or_else(|| format!("the example has no {name}"))?;
        let other = format!("{name} = {{ file = \"/etc/tandem/{file}\" }}");
        config = config.replacen(line, &other, 1);
    }
    Ok(config)
}

fn mend(machine: &mut Machine) -> Outcome<()> {
    let wrong = EXAMPLE.replacen("vrid = 50", "vrid = 500", 1);
    check(wrong != EXAMPLE, || "the example has another vrid".into())?;
    machine.put("tandem.toml", wrong.as_bytes())?;
    machine.power_on()?;
    let told = machine.wait_for("does not serve> ", SERVICE_LIMIT)?;
    check(told.contains("write host = \"server1\""), || format!("it says: {told}"))?;
    machine.types("edit host.toml\r")?;
    machine.answers("edit> ", "+0", ANSWER_LIMIT)?;
    machine.answers("1+ ", "host = \"server1\"", ANSWER_LIMIT)?;
    machine.answers("2+ ", ".", ANSWER_LIMIT)?;
    machine.answers("edit> ", "w", ANSWER_LIMIT)?;
    machine.wait_for("written", ANSWER_LIMIT)?;
    machine.answers("does not serve> ", "reboot", ANSWER_LIMIT)?;
    machine.wait_for_end(ANSWER_LIMIT)?;

    machine.power_on()?;
    let told = machine.wait_for("does not serve> ", SERVICE_LIMIT)?;
    check(told.contains("line 19, column 8"), || format!("it says: {told}"))?;
    machine.types("edit\r")?;
    machine.answers("edit> ", "w", ANSWER_LIMIT)?;
    machine.wait_for("line 19, column 8", ANSWER_LIMIT)?;
    // The line is offered as it is; its last digit is one too many.
    machine.answers("edit> ", "19", ANSWER_LIMIT)?;
    machine.answers("vrid = 500", "\x7f", ANSWER_LIMIT)?;
    machine.answers("edit> ", "w", ANSWER_LIMIT)?;
    machine.wait_for("written", ANSWER_LIMIT)?;
    machine.answers("does not serve> ", "reboot", ANSWER_LIMIT)?;
    machine.wait_for_end(ANSWER_LIMIT)?;

    serves(machine)?;
    machine.types("reset --everything\r")?;
    machine.answers("Type server1 to go on: ", "server1", ANSWER_LIMIT)?;
    machine.wait_for_end(SERVICE_LIMIT)?;
    machine.power_on()?;
    machine.wait_for("data partition made", SERVICE_LIMIT)?;
    machine.wait_for("answers", SERVICE_LIMIT)?;
    machine.wait_for("server1 joining> ", SERVICE_LIMIT)?;
    machine.types("network ping 10.96.153.1\r")?;
    machine.wait_for("10.96.153.1 answers after", ANSWER_LIMIT)?;
    machine.types("network\r")?;
    let told = machine.wait_for("near     10.96.153.1", ANSWER_LIMIT)?;
    check(told.contains("eth0     52:54:00:00:01:00 carrier"), || format!("network: {told}"))?;

    machine.types("watchdog --test\r")?;
    machine.answers("[y/N] ", "y", ANSWER_LIMIT)?;
    machine.wait_for("not fed any more", ANSWER_LIMIT)?;
    let reset = machine.wait_for_end(WATCHDOG_LIMIT)?;
    println!("a guard that does not feed the watchdog: reset after {} s", seconds(reset));
    serves(machine)?;
    let ended = shut_down(machine)?;
    println!("shutdown, database and all: {} s", seconds(ended));
    Ok(())
}

/// On a disk in memory, where the kernel has one to spare.
#[test]
fn an_image_is_flashed_onto_a_disk_that_nobody_uses() {
    let image = machine::image().unwrap_or_else(|why| panic!("{why}"));
    let image = image.with_extension("img.zst").display().to_string();
    let flash = |words: &[&str]| -> (bool, String) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/flash");
        let mut command = Command::new(script);
        let output = command.args(words).stdin(Stdio::null()).output().expect("bash");
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    };
    for (words, why) in [
        (["/dev/null", image.as_str()], "no block device"),
        (["/dev/zram0", "/no/such/image"], "no such file"),
    ] {
        let (is_done, said) = flash(&words);
        assert!(!is_done && said.contains(why), "{said}");
    }
    let size = Path::new("/sys/block/zram0/disksize");
    if fs::read_to_string(size).is_ok_and(|text| text.trim() != "0") || !size.exists() {
        println!("this kernel has no disk in memory to spare: nothing was flashed");
        return;
    }
    let set = |size_of: &str| fs::write(size, size_of).expect("zram takes a size");
    let reset = || fs::write("/sys/block/zram0/reset", "1").expect("zram is reset");
    set("128M");
    let small = flash(&["/dev/zram0", &image, "--yes"]);
    reset();
    set("512M");
    let asked = flash(&["/dev/zram0", &image]);
    let written = flash(&["/dev/zram0", &image, "--yes"]);
    reset();
    assert!(!small.0 && small.1.contains("the image"), "{}", small.1);
    assert!(!asked.0 && asked.1.contains("nobody is there to be asked"), "{}", asked.1);
    assert!(written.0 && written.1.contains("written and read back"), "{}", written.1);
}

struct Stage {
    machines: Vec<Machine>,
    client: Host,
    /// Where the client's server of HTTP has its files.
    depot: PathBuf,
    /// Last, as it ends whatever is left of the others.
    _world: World,
}

impl Stage {
    fn new(firmwares: &[Firmware]) -> Outcome<Self> {
        let image = machine::image()?;
        let world = World::new()?;
        let mut client = Host::new(&world, CLIENT)?;
        client.boot(&world)?;
        let machine = |((name, number), firmware): ((&'static str, u8), &Firmware)| {
            Machine::new(&world, name, number, &image, *firmware)
        };
        let machines = NAMES.into_iter().zip(1..).zip(firmwares).map(machine);
        let machines = machines.collect::<Outcome<Vec<_>>>()?;
        let depot = world.dir().join("depot");
        fs::create_dir(&depot).map_err(text)?;
        Ok(Self { machines, client, depot, _world: world })
    }

    fn play(&mut self) -> Outcome<()> {
        for machine in &self.machines {
            machine.put("host.toml", format!("host = \"{}\"\n", machine.name).as_bytes())?;
            machine.put("tandem.toml", with_secret_files()?.as_bytes())?;
            machine.put("www/static.txt", static_text().as_bytes())?;
            for (name, content) in FILES {
                machine.put(&format!("www/{name}"), content.as_bytes())?;
            }
        }
        self.share_secrets()?;
        let at = self.machines[0].power_on()?;
        self.machines[1].power_on()?;
        let first = self.machines[0].wait_for("after the kernel", SERVICE_LIMIT);
        first.map(drop)?;
        println!("power-on to PID 1: {} s", seconds(at.elapsed()));
        self.page("/install.php", "installed", SERVICE_LIMIT)?;
        self.page("/read.php", "rows 0", ANSWER_LIMIT)?;
        println!("power-on to the first page with the database: {} s", seconds(at.elapsed()));
        self.is_in_role(0, "active")?;
        self.is_in_role(1, "standby")?;
        self.is_durable(0)?;
        let load = Load::start(&self.client, OUTSIDE_VIP, RATES, &static_text(), 1)?;
        let began = Instant::now();
        let story = self.fail_over_and_back(&load).and_then(|()| self.update(&load));
        let story = story.and_then(|()| self.take_site());
        let records = load.finish()?;
        story?;
        let rows = self.get("/rows.php", ANSWER_LIMIT)?;
        let rows: BTreeSet<u64> = rows.lines().filter_map(|line| line.parse().ok()).collect();
        let lost = lost(&records, began, Instant::now(), &rows);
        let good = records.iter().filter(|it| it.is_good()).count();
        println!(
            "{good} of {} requests were good, {} acknowledged writes lost",
            records.len(),
            lost.len()
        );
        check(lost.is_empty(), || format!("acknowledged and lost: {lost:?}"))
    }

    /// The secrets are made on one console, and taken over on the other with a code.
    fn share_secrets(&mut self) -> Outcome<()> {
        for machine in &mut self.machines {
            machine.power_on()?;
        }
        let [one, other] = &mut self.machines[..] else { return Err("two machines".into()) };
        for machine in [&mut *one, &mut *other] {
            let told = machine.wait_for("does not serve> ", SERVICE_LIMIT)?;
            let is_told = told.contains("/etc/tandem/key: is missing; `tandem secrets`");
            check(is_told, || format!("it says: {told}"))?;
        }
        one.types("secrets make\r")?;
        one.wait_for("Now server2 must get the same: `secrets offer` here.", ANSWER_LIMIT)?;
        one.answers("does not serve> ", "secrets offer", ANSWER_LIMIT)?;
        one.wait_for("    secrets take ", ANSWER_LIMIT)?;
        let code = one.wait_for("\r\n", ANSWER_LIMIT)?;
        other.types(&format!("secrets take {}\r", code.trim()))?;
        other.wait_for("this host has taken /etc/tandem/key, /etc/tandem/repl", ANSWER_LIMIT)?;
        one.wait_for("server2 has taken /etc/tandem/key, /etc/tandem/repl", ANSWER_LIMIT)?;
        for machine in [one, other] {
            machine.answers("does not serve> ", "reboot", ANSWER_LIMIT)?;
            machine.wait_for_end(ANSWER_LIMIT)?;
        }
        Ok(())
    }

    fn cut(&mut self) -> Outcome<()> {
        machine::update(&self.depot.join("good"), 10, None)?;
        self.serve(self.depot.clone())?;
        let machine = &mut self.machines[0];
        machine.put("host.toml", b"host = \"server1\"\n")?;
        machine.put("tandem.toml", EXAMPLE.as_bytes())?;
        let mut random = u64::from(std::process::id());
        for round in 0..20 {
            let told = serves(machine)?;
            let slot = told.split("slot ").nth(1).and_then(|rest| rest.get(..1)).unwrap_or("?");
            // From no time to as long as it takes.
            let (what, limit) = [
                ("an update", 15_000),
                ("an update", 15_000),
                ("a reset", 4_000),
                ("a first boot", 12_000),
            ][round % 4];
            if what == "an update" {
                machine.types("update http://10.96.153.1:8000/good --yes\r")?;
            } else {
                machine.types("reset --everything\r")?;
                machine.answers("Type server1 to go on: ", "server1", ANSWER_LIMIT)?;
            }
            if what == "a first boot" {
                machine.wait_for_end(SERVICE_LIMIT)?;
                machine.power_on()?;
            }
            // Knuth's generator, of MMIX.
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let moment = Duration::from_millis((random >> 33) % limit);
            let ended = machine.wait_for_end(moment).is_ok();
            machine.power_off()?;
            let how = if ended { "it had ended by itself within" } else { "cut after" };
            println!("slot {slot} served; then {what}: {how} {} s", seconds(moment));
        }
        serves(machine).map(drop)
    }

    /// A newer application on both hosts: there at once, and taken back.
    fn take_site(&mut self) -> Outcome<()> {
        let folder = self.depot.join("site");
        fs::create_dir(&folder).map_err(text)?;
        fs::write(folder.join("newer.php"), "<?php echo 'newer ', 6 * 7;").map_err(text)?;
        let archive = self.depot.join("site.tgz");
        let mut tar = Command::new("tar");
        tar.arg("-czf").arg(&archive).arg("-C").arg(&folder).arg(".");
        check(tar.status().is_ok_and(|it| it.success()), || "tar".into())?;
        // The one that stands by comes first: php-fpm of both gets the pages.
        for machine in self.machines.iter_mut().rev() {
            machine.types("site http://10.96.153.1:8000/site.tgz\r")?;
            machine.wait_for("1 file, 27 bytes, served from now on", ANSWER_LIMIT)?;
        }
        self.page("/newer.php", "newer 42", ANSWER_LIMIT)?;
        self.page("/read.php", "rows", ANSWER_LIMIT)?;
        for machine in &mut self.machines {
            machine.types("site --back\r")?;
        }
        let gone = wait_until("the newer page is gone", ANSWER_LIMIT, || {
            self.get("/newer.php", ANSWER_LIMIT).is_err()
        });
        gone.map(drop)
    }

    fn fill(&mut self) -> Outcome<()> {
        let machine = &mut self.machines[0];
        machine.put("host.toml", b"host = \"server1\"\n")?;
        machine.put("tandem.toml", EXAMPLE.as_bytes())?;
        machine.put("www/fill.php", include_bytes!("app/fill.php"))?;
        serves(machine)?;
        let network = self.client.network()?;
        let leave = |percent: u8| {
            let own = SocketAddr::from(([10, 96, 153, 110], 80));
            let path = format!("/fill.php?free={percent}");
            inside(&network, || load::get(own, &path, Instant::now() + SERVICE_LIMIT))?
        };
        println!("some: {}", leave(12)?.trim());
        println!("most: {}", leave(8)?.trim());
        let machine = &mut self.machines[0];
        machine.wait_for("% of its room is left", SERVICE_LIMIT)?;
        println!("all: {}", leave(0)?.trim());
        let machine = &mut self.machines[0];
        machine.types("db\r")?;
        machine.wait_for("server1 joining> ", ANSWER_LIMIT)?;
        println!("given back: {}", leave(100)?.trim());
        let machine = &mut self.machines[0];
        machine.wait_for("% of its room is free again", SERVICE_LIMIT)?;
        // And it boots from what is left.
        machine.types("reboot\r")?;
        machine.answers("[y/N] ", "y", ANSWER_LIMIT)?;
        machine.wait_for_end(SERVICE_LIMIT)?;
        serves(machine).map(drop)
    }

    fn fail_over_and_back(&mut self, load: &Load) -> Outcome<()> {
        let is_written = |since| load.has_good(Kind::Write, since);
        wait_until("writes flow", ANSWER_LIMIT, || {
            is_written(Instant::now() - Duration::from_secs(1))
        })?;

        let at = self.machines[0].power_off()?;
        let taken = wait_until("server2 takes writes", FAILOVER_LIMIT, || is_written(at))?;
        println!("server1's power is cut: a write again after {} s", seconds(taken));
        self.is_in_role(1, "active")?;

        let at = self.machines[0].power_on()?;
        self.is_in_role(0, "standby")?;
        println!("server1 is back, a replica after {} s", seconds(at.elapsed()));
        self.is_in_role(1, "active")?;
        self.is_durable(1)?;

        let at = Instant::now();
        self.machines[0].types("switchover\r")?;
        self.machines[0].wait_for("[y/N] ", ANSWER_LIMIT)?;
        self.machines[0].types("y\r")?;
        self.machines[0].wait_for("server1 active> ", FAILOVER_LIMIT)?;
        self.is_in_role(1, "standby")?;
        println!("switchover typed on server1's line: {} s", seconds(at.elapsed()));
        wait_until("writes flow", ANSWER_LIMIT, || is_written(at))?;
        let failed: Vec<Record> =
            load.records().into_iter().filter(|it| it.start >= at && !it.is_good()).collect();
        check(failed.is_empty(), || format!("failed in the switchover: {failed:?}"))
    }

    /// The host that stands by takes another build, keeps it, and goes back from one that does not
    /// even boot.
    fn update(&mut self, load: &Load) -> Outcome<()> {
        let folder = self.depot.clone();
        let junk = folder.join("junk");
        fs::write(&junk, "no initramfs").map_err(text)?;
        machine::update(&folder.join("good"), 10, None)?;
        machine::update(&folder.join("broken"), 20, Some(&junk))?;
        let mut bytes = fs::read(folder.join("good")).map_err(text)?;
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(folder.join("damaged"), bytes).map_err(text)?;
        self.serve(folder)?;
        let at = Instant::now();

        let server2 = &mut self.machines[1];
        server2.types("update http://10.96.153.1:8000/damaged --yes\r")?;
        server2.wait_for("its SHA-256 is", ANSWER_LIMIT * 2)?;
        let [server1, server2] = self.machines.as_mut_slice() else { return Err("two".into()) };
        server1.types("update http://10.96.153.1:8000/good --pair\r")?;
        server1.answers("[y/N] ", "y", ANSWER_LIMIT)?;
        server2.wait_for_end(SERVICE_LIMIT)?;
        server2.power_on()?;
        server2.wait_for("slot B is on trial", SERVICE_LIMIT)?;
        server1.wait_for("server2 is back and well with it", SERVICE_LIMIT)?;
        println!(
            "update of the pair: the standby is back and well after {} s",
            seconds(at.elapsed())
        );
        server1.wait_for_end(SERVICE_LIMIT)?;
        server1.power_on()?;
        server1.wait_for("slot B is on trial", SERVICE_LIMIT)?;
        self.is_kept(0)?;
        self.is_kept(1)?;
        self.is_in_role(0, "standby")?;
        self.is_in_role(1, "active")?;
        println!("update of the pair, until both are kept: {} s", seconds(at.elapsed()));

        // Back, so that it is server2 that stands by.
        self.machines[0].types("switchover --yes\r")?;
        self.is_in_role(0, "active")?;
        self.is_in_role(1, "standby")?;

        let server2 = &mut self.machines[1];
        server2.types("update http://10.96.153.1:8000/broken --yes\r")?;
        server2.wait_for("slot A is tried at the next boot", ANSWER_LIMIT * 2)?;
        server2.wait_for_end(ANSWER_LIMIT)?;
        for _ in 0..3 {
            server2.power_on()?;
            // Its kernel finds nothing to start, and boots again after ten seconds: not awaited.
            server2.wait_for("Kernel panic", SERVICE_LIMIT)?;
            server2.power_off()?;
        }
        server2.power_on()?;
        server2.wait_for("slot B", SERVICE_LIMIT)?;
        server2.wait_for("the build in slot A did not do", SERVICE_LIMIT)?;
        self.is_in_role(1, "standby")?;
        // What was noted two boots ago.
        self.is_kept(1)?;
        let server2 = &mut self.machines[1];
        server2.types("update http://10.96.153.1:8000/broken --yes\r")?;
        server2.wait_for("did not become well, and went back", ANSWER_LIMIT)?;
        let failed: Vec<Record> =
            load.records().into_iter().filter(|it| it.start >= at && !it.is_good()).collect();
        check(failed.is_empty(), || format!("failed in the updates: {failed:?}"))
    }

    /// Whether the build on trial is kept, as `log` says.
    fn is_kept(&mut self, number: usize) -> Outcome<()> {
        let machine = &mut self.machines[number];
        wait_until("the build is kept", SERVICE_LIMIT, || {
            machine.types("log -n 1000\r").is_ok()
                && machine.wait_for("this build is kept", Duration::from_secs(2)).is_ok()
        })
        .map(drop)
    }

    /// A server of HTTP on the client, for as long as the test runs.
    fn serve(&self, folder: PathBuf) -> Outcome<()> {
        let listener =
            inside(&self.client.network()?, || TcpListener::bind(("10.96.153.1", 8000)))?
                .map_err(text)?;
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut stream = BufReader::new(stream);
                let mut line = String::new();
                let _asked = stream.read_line(&mut line);
                let name = line.split(' ').nth(1).unwrap_or_default().trim_start_matches('/');
                let content = fs::read(folder.join(name)).unwrap_or_default();
                while line.trim() != "" {
                    line.clear();
                    let _rest = stream.read_line(&mut line);
                }
                let stream = stream.get_mut();
                let _gone = stream
                    .write_all(b"HTTP/1.0 200 OK\r\n\r\n")
                    .and_then(|()| stream.write_all(&content));
            }
        });
        Ok(())
    }

    /// Asks the line what the host does until it does this.
    fn is_in_role(&mut self, number: usize, role: &str) -> Outcome<()> {
        let machine = &mut self.machines[number];
        let words = format!("{} {role}> ", machine.name);
        wait_until(&words, SERVICE_LIMIT, || {
            machine.types("\r").is_ok() && machine.wait_for(&words, Duration::from_secs(2)).is_ok()
        })
        .map(drop)
    }

    /// What is acknowledged from here on is on both hosts.
    fn is_durable(&mut self, number: usize) -> Outcome<()> {
        let machine = &mut self.machines[number];
        wait_until("writes are on both hosts", SERVICE_LIMIT, || {
            machine.types("db\r").is_ok()
                && machine.wait_for("by both hosts", Duration::from_secs(3)).is_ok()
        })
        .map(drop)
    }

    fn get(&self, path: &str, limit: Duration) -> Outcome<String> {
        let target = SocketAddr::from((OUTSIDE_VIP, 80));
        inside(&self.client.network()?, || load::get(target, path, Instant::now() + limit))?
    }

    /// Asks for a page until it begins with these words.
    fn page(&self, path: &str, words: &str, limit: Duration) -> Outcome<()> {
        let mut last = String::new();
        let waited = wait_until(&format!("{path} says {words}"), limit, || {
            last = self.get(path, Duration::from_secs(5)).unwrap_or_else(|why| why);
            last.starts_with(words)
        });
        waited.map(drop).map_err(|why| format!("{why}; {last}"))
    }
}
