//! argv[0] and argv[1] choose the applet; the applet's result is the exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    tandem::cli::run(std::env::args().collect())
}
