//! This program with other arguments, in a process of its own.
//!
//! In: words. Out: what it printed, or why it failed. Must not: know what the words mean.
//! What would meet the next daemon's replication, if it outlived this one, says at its beginning
//! that it ends with whoever waits for it (`end_with_caller`).

use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::thread;

pub fn command(words: &[&str]) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.args(words);
    command
}

/// Its standard input is what tells it that somebody waits.
pub fn begin(command: &mut Command) -> Result<Child, String> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().map_err(|error| error.to_string())
}

/// Waits for its end. What it printed and nobody has read yet; what it complained of.
pub fn end(mut child: Child) -> Result<Vec<u8>, String> {
    // wait_with_output would close it.
    let waits = child.stdin.take();
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    drop(waits);
    match output.status.success() {
        true => Ok(output.stdout),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}

/// The same, from beginning to end.
pub async fn ended(mut command: Command) -> Result<Vec<u8>, String> {
    smol::unblock(move || end(begin(&mut command)?)).await
}

/// Of the process itself: it ends as soon as nobody waits for it.
pub fn end_with_caller() {
    thread::spawn(|| {
        let _ended = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(1);
    });
}
