//! What an idle daemon costs: memory, processor time, wake-ups, from /proc.
//!
//! In: processes of a host by their pid files. Out: a table, side by side in one stretch of time.
//! Read first: facts/vrrp.md 5; proc(5) "smaps_rollup", "schedstat", "status".

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::host::Host;
use crate::world::Outcome;

/// One process and where its figures are.
#[derive(Debug)]
pub struct Process {
    title: &'static str,
    dir: PathBuf,
}

/// The counters of one thread at one moment.
#[derive(Debug, Clone)]
struct Thread {
    number: String,
    name: String,
    on_cpu: Duration,
    /// Voluntary context switches: each ends in a wake-up.
    sleeps: u64,
}

#[derive(Debug)]
struct Counters {
    /// User and system time as stat has it, in ticks of 10 ms.
    ticks: u64,
    threads: Vec<Thread>,
}

/// What a second costs.
#[derive(Debug, Default)]
struct Rate {
    cpu_ms: f64,
    wakeups: f64,
}

impl Process {
    pub fn find(host: &Host, title: &'static str, pid_file: &str) -> Outcome<Self> {
        let pid = host.read(&["cat", pid_file])?;
        Ok(Self { title, dir: host.live_path(&format!("/proc/{}", pid.trim()))? })
    }

    /// Memory that would be free without it, in kB.
    pub fn own_memory(&self) -> Outcome<u64> {
        let memory = read(&self.dir.join("smaps_rollup"))?;
        Ok(field(&memory, "Private_Dirty:") + field(&memory, "Private_Clean:"))
    }

    pub fn threads(&self) -> Outcome<usize> {
        Ok(self.counters()?.threads.len())
    }

    fn counters(&self) -> Outcome<Counters> {
        let stat = read(&self.dir.join("stat"))?;
        // The name, which may hold anything, ends at the last parenthesis; utime is field 14.
        let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ').skip(11).take(2);
        let ticks = fields.filter_map(|field| field.parse::<u64>().ok()).sum();
        let dir = self.dir.join("task");
        let tasks = fs::read_dir(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        // A thread that ended in between is none.
        let threads = tasks.flatten().filter_map(|task| Thread::read(&task.path()).ok()).collect();
        Ok(Counters { ticks, threads })
    }
}

impl Thread {
    fn read(dir: &Path) -> Outcome<Self> {
        let schedule = read(&dir.join("schedstat"))?;
        let on_cpu = schedule.split(' ').next().and_then(|it| it.parse().ok()).unwrap_or(0);
        Ok(Self {
            number: dir.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            name: read(&dir.join("comm"))?.trim().to_owned(),
            on_cpu: Duration::from_nanos(on_cpu),
            sleeps: field(&read(&dir.join("status"))?, "voluntary_ctxt_switches:"),
        })
    }

    /// Since an earlier reading; a thread that was not there then began at zero.
    fn rate(&self, before: &Counters, seconds: f64) -> Rate {
        let old = before.threads.iter().find(|it| it.number == self.number);
        let (on_cpu, sleeps) = old.map_or((Duration::ZERO, 0), |it| (it.on_cpu, it.sleeps));
        Rate {
            cpu_ms: self.on_cpu.saturating_sub(on_cpu).as_secs_f64() * 1000.0 / seconds,
            wakeups: number(self.sleeps.saturating_sub(sleeps)) / seconds,
        }
    }
}

/// Watches all of them for `time`; prints and returns a row for each, and one for each thread
/// where there are several.
pub fn measure(processes: &[Process], time: Duration) -> Outcome<Value> {
    println!(
        "{:<20} {:>8} {:>8} {:>9} {:>8} {:>9} {:>10} {:>11}",
        "process",
        "RSS kB",
        "PSS kB",
        "dirty kB",
        "threads",
        "CPU ms/s",
        "ticks ms/s",
        "wake-ups/s"
    );
    let since = Instant::now();
    let before = counters(processes)?;
    std::thread::sleep(time);
    let after = counters(processes)?;
    let seconds = since.elapsed().as_secs_f64();
    let mut rows = Vec::new();
    for ((process, before), after) in processes.iter().zip(before).zip(after) {
        rows.push(row(process, &before, &after, seconds)?);
    }
    Ok(Value::Array(rows))
}

fn row(process: &Process, before: &Counters, after: &Counters, seconds: f64) -> Outcome<Value> {
    let memory = read(&process.dir.join("smaps_rollup"))?;
    let [rss, pss, dirty] = ["Rss:", "Pss:", "Private_Dirty:"].map(|name| field(&memory, name));
    let rates: Vec<(&str, Rate)> =
        after.threads.iter().map(|it| (it.name.as_str(), it.rate(before, seconds))).collect();
    let all = rates.iter().fold(Rate::default(), |sum, (_, it)| Rate {
        cpu_ms: sum.cpu_ms + it.cpu_ms,
        wakeups: sum.wakeups + it.wakeups,
    });
    // USER_HZ is 100.
    let ticks = number(after.ticks.saturating_sub(before.ticks)) * 10.0 / seconds;
    println!(
        "{:<20} {rss:>8} {pss:>8} {dirty:>9} {:>8} {:>9.2} {ticks:>10.1} {:>11.1}",
        process.title,
        rates.len(),
        all.cpu_ms,
        all.wakeups
    );
    for (name, rate) in rates.iter().filter(|_| rates.len() > 1) {
        println!("  thread {name:<48} {:>9.2} {:>22.1}", rate.cpu_ms, rate.wakeups);
    }
    let threads: Vec<Value> = rates
        .iter()
        .map(|(name, it)| {
            json!({ "name": name, "cpu_ms_per_s": it.cpu_ms, "wakeups_per_s": it.wakeups })
        })
        .collect();
    Ok(json!({
        "process": process.title, "rss_kb": rss, "pss_kb": pss, "private_dirty_kb": dirty,
        "cpu_ms_per_s": all.cpu_ms, "ticks_ms_per_s": ticks, "wakeups_per_s": all.wakeups,
        "threads": threads,
    }))
}

fn counters(processes: &[Process]) -> Outcome<Vec<Counters>> {
    processes.iter().map(Process::counters).collect()
}

fn read(path: &Path) -> Outcome<String> {
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// The number behind a name at the beginning of a line; 0 if there is none.
fn field(text: &str, name: &str) -> u64 {
    let rest = text.lines().find_map(|line| line.strip_prefix(name));
    rest.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn number(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
