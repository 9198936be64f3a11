//! The console's two doors: frames on the control socket, keys on a line.
//!
//! In: any bytes. Out: a panic where a law is broken. Read first: `console::message`,
//! `console::editor`.

use tandem::console::editor::{Editor, Event, LINE_BYTES_MAX};
use tandem::console::message::{self, Garbled, Request};
use tandem::console::note::Record;
use tandem::limits::CONTROL_FRAME_BYTES_MAX;

/// Any frame is a request or says why not, on a line that a terminal can show; what is a request
/// survives its own frame.
pub fn control(input: &[u8]) {
    match message::decode::<Request>(input) {
        Ok(request) => assert_eq!(message::decode(&message::encode(&request)), Ok(request)),
        Err(garbled) => {
            let is_long = matches!(garbled, Garbled::TooLong { .. });
            assert_eq!(is_long, input.len() > CONTROL_FRAME_BYTES_MAX);
            let told = garbled.to_string();
            assert!(!told.is_empty() && !told.contains(char::is_control), "{told:?}");
        }
    }
    let _any: Result<Vec<Record>, Garbled> = message::decode(input);
}

/// What a terminal without escape sequences shows of its last line.
#[derive(Default)]
struct Terminal {
    row: Vec<u8>,
    column: usize,
}

impl Terminal {
    fn print(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                b'\r' => self.column = 0,
                b'\n' => self.row.clear(),
                7 => {}
                8 => self.column = self.column.checked_sub(1).expect("off the line"),
                0x20..=0x7e => {
                    assert!(self.column < 79, "beyond the last column");
                    if self.row.len() <= self.column {
                        self.row.resize(self.column + 1, b' ');
                    }
                    self.row[self.column] = *byte;
                    self.column += 1;
                }
                other => panic!("{other:#x} is for no terminal"),
            }
        }
    }
}

/// Keys draw within a line, cost a bounded number of bytes each, and come to a line of what was
/// typed; a secret is never shown.
pub fn keys(input: &[u8]) {
    let Some((control, keys)) = input.split_first() else { return };
    let is_secret = control & 1 == 1;
    let prompt = if control & 2 == 2 { "server1 standby> " } else { "> " };
    let words = |_: &str| vec!["status", "switchover", "hold", "on", "off"];
    let (mut editor, mut terminal) = (Editor::default(), Terminal::default());
    let mut out = Vec::new();
    editor.begin(prompt, is_secret, &mut out);
    terminal.print(&out);
    for key in keys {
        out.clear();
        let event = editor.byte(*key, words, &mut out);
        assert!(out.len() < 600, "{} bytes for a key", out.len());
        terminal.print(&out);
        let shown = String::from_utf8_lossy(&terminal.row).into_owned();
        match event {
            None => {
                assert!(shown.starts_with(prompt.trim_end()), "{shown:?}");
                assert!(!is_secret || shown.trim_end() == prompt.trim_end(), "{shown:?}");
            }
            Some(event) => {
                if let Event::Line(line) = event {
                    assert!(line.len() <= LINE_BYTES_MAX && line.is_ascii(), "{line:?}");
                    assert!(!line.contains(|c: char| c.is_ascii_control()), "{line:?}");
                }
                terminal = Terminal::default();
                out.clear();
                editor.begin(prompt, is_secret, &mut out);
                terminal.print(&out);
            }
        }
    }
}

/// Frames and keys that mean something.
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    match target {
        "control" => [
            Request::Status,
            Request::Hold(true),
            Request::PhpDrain { host: "server1".into(), is_on: true },
            Request::Log { count: 20, level: message::Level::Warn, follow: true },
            Request::ConsoleLogin { tty: "ttyS0".into(), is_in: false },
        ]
        .iter()
        .map(message::encode)
        .collect(),
        "keys" => [
            &b"\0status\r"[..],
            b"\x02switch\t\x1b[D\x1b[D\x17x\r\x1b[A\x1b[A\r",
            b"\x01secret\x7f\x08\r",
            b"\x02hold o\x1b[1;5Dn\x0b\x15\x0c\x03\x04",
        ]
        .map(<[u8]>::to_vec)
        .into(),
        _ => Vec::new(),
    }
}
