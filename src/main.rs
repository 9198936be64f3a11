//! argv[0] and argv[1] choose the applet; the applet's result is the exit code.

fn main() {}
