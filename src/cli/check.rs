//! `tandem check [--live] [--host NAME] [FILE]`: validates a configuration; with `--live` it looks
//! at the network for a few seconds too, before anything serves on it.

use std::process::ExitCode;

use crate::config::Config;
use crate::os::{file, survey};
use crate::wire::HostId;

pub(super) fn run(arguments: &[String]) -> ExitCode {
    let (mut path, mut host, mut is_live) = (None, None, false);
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--live" => is_live = true,
            "--host" => match rest.next() {
                Some(name) => host = Some(name.as_str()),
                None => return super::usage("--host needs a name"),
            },
            option if option.starts_with('-') => {
                return super::usage(&format!("check does not know {option}"));
            }
            file if path.is_none() => path = Some(file),
            _ => return super::usage("check takes one file"),
        }
    }
    let path = path.unwrap_or(super::CONFIG_PATH);
    let loaded = file::load_config(path).and_then(|config| {
        super::check_files(path, &config).map(|complaints| (config, complaints))
    });
    let (config, complaints) = match loaded {
        Ok(loaded) => loaded,
        Err(why) => {
            eprintln!("tandem: {why}");
            return ExitCode::from(2);
        }
    };
    let digest: String = config.digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let names = HostId::ALL.map(|id| config.host(id).name.clone());
    println!("{path}: valid, hosts {} and {}, digest {digest}", names[0], names[1]);
    for complaint in complaints {
        println!("{path}: {complaint}");
    }
    if !is_live {
        return ExitCode::SUCCESS;
    }
    match super::this_host(&config, host) {
        Ok(me) => look(&config, me),
        Err(why) => {
            eprintln!("tandem: {why}");
            ExitCode::from(2)
        }
    }
}

/// Ends with 1 when something was found, or when it could not look.
fn look(config: &Config, me: HostId) -> ExitCode {
    let survey = match survey::run(config, me) {
        Ok(survey) => survey,
        Err(error) => {
            eprintln!(
                "tandem: cannot look at the network: {error} (it needs root, or CAP_NET_RAW and \
                 CAP_NET_ADMIN)"
            );
            return ExitCode::FAILURE;
        }
    };
    for line in survey.lines() {
        println!("{line}");
    }
    let findings = survey.findings();
    for finding in &findings {
        println!("{finding}");
    }
    if findings.is_empty() {
        println!("nothing is wrong that can be seen before serving");
        return ExitCode::SUCCESS;
    }
    ExitCode::FAILURE
}
