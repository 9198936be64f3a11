//! `tandem check [FILE]`: validates a configuration and says what it found.

use std::process::ExitCode;

use crate::wire::HostId;

pub(super) fn run(arguments: &[String]) -> ExitCode {
    let path = match arguments {
        [] => super::CONFIG_PATH,
        [path] => path,
        [..] => return super::usage("check takes one file"),
    };
    match super::load(path) {
        Ok(config) => {
            let digest: String = config.digest.iter().map(|byte| format!("{byte:02x}")).collect();
            let names = HostId::ALL.map(|id| config.host(id).name.clone());
            println!("{path}: valid, hosts {} and {}, digest {digest}", names[0], names[1]);
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("tandem: {why}");
            ExitCode::from(2)
        }
    }
}
