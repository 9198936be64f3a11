//! argv[0] and argv[1] choose the applet; the applet's result is the exit code.

use std::process::ExitCode;

/// musl's own gives a page back to the kernel as soon as it is free, and fetches it again for the
/// next request.
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> ExitCode {
    tandem::cli::run(std::env::args().collect())
}
