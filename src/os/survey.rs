//! Runs a survey of the network to its end.
//!
//! In: a configuration. Out: the survey, over. Must not: run beside the daemon, whose beacons its
//! socket would take: the daemon's lock is held meanwhile.
//! Read first: `node::survey`.

use std::io;
use std::rc::Rc;

use smol::LocalExecutor;
use smol::channel;

use super::network::Network;
use super::{clock, file, run};
use crate::config::Config;
use crate::limits;
use crate::node::survey::{Output, Survey};
use crate::wire::HostId;

pub fn run(config: &Config, me: HostId) -> io::Result<Survey> {
    let _no_daemon = file::lock()?;
    let executor = Rc::new(LocalExecutor::new());
    let (inputs_in, inputs) = channel::bounded(limits::INPUTS_QUEUED);
    async_io::block_on(executor.run(async {
        let network = Network::open(config, me)?;
        network.start_readers(&executor, &inputs_in);
        let mut survey = Survey::new(config.clone(), me);
        let mut now = clock::now();
        while !survey.is_over(now) {
            while let Some(output) = survey.poll_output() {
                perform(&network, output)?;
            }
            let input = run::next_input(&inputs, survey.deadline().or(Some(now))).await;
            now = clock::now();
            survey.handle(now, input);
        }
        Ok(survey)
    }))
}

/// A survey sends frames and asks the kernel; a frame that cannot leave is found by its silence.
fn perform(network: &Network, output: Output) -> io::Result<()> {
    match output {
        Output::Frame { device, frame } => {
            let _silence_tells = network.send_frame(device, &frame);
            Ok(())
        }
        Output::Netlink { request } => network.send_netlink(&request),
    }
}
