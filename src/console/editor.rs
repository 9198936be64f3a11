//! The line editor: bytes of a keyboard in, a line out.
//!
//! In: bytes, one at a time. Out: bytes for the terminal, and what the line came to.
//! Must not: know a terminal: it draws with backspace, space and carriage return alone, so that a
//! VT100, a dumb terminal and a printer show the same. Read first: bash(1) "READLINE" for the keys.
//!
//! ```text
//!  bytes -> Escape (sequences of arrow keys) -> Key -> line, cursor -> what is shown -> difference
//! ```
//! A line longer than the screen is wide is shown in part. What is shown changes by its difference:
//! a key costs a byte or two at 9600 baud, and never more than two lines' worth.

use heapless::{Deque, Vec as Bounded};

/// Bytes of a line; more are answered with the bell.
pub const LINE_BYTES_MAX: usize = 256;
const HISTORY_LINES: usize = 16;
/// The last column stays free: some terminals begin a new line there.
const COLUMNS: usize = 79;
const PROMPT_BYTES_MAX: usize = 40;

const BELL: u8 = 7;
const BACKSPACE: u8 = 8;

type Line = Bounded<u8, LINE_BYTES_MAX>;

/// What a key came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Line(String),
    /// Ctrl-C: the line is dropped.
    Interrupted,
    /// Ctrl-D on an empty line.
    Ended,
    /// Ctrl-L: whoever has the terminal clears it, then calls `interject`.
    Cleared,
}

#[derive(Debug, Default)]
pub struct Editor {
    prompt: Bounded<u8, PROMPT_BYTES_MAX>,
    line: Line,
    cursor: usize,
    /// The first byte of the line that is shown.
    from: usize,
    /// What stands behind the prompt, and the column of the terminal's cursor in it.
    shown: Bounded<u8, COLUMNS>,
    at: usize,
    history: Deque<Line, HISTORY_LINES>,
    /// How far back in the history, and the line that was left for it.
    back: usize,
    draft: Line,
    escape: Escape,
    /// Nothing is shown and nothing is remembered.
    is_secret: bool,
    was_return: bool,
}

/// Where in a sequence of ECMA-48 the keyboard is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Escape {
    #[default]
    None,
    Begun,
    /// Behind ESC [ or ESC O: the first number, and the last.
    Sequence {
        first: u8,
        last: u8,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Char(u8),
    Return,
    Tab,
    Interrupt,
    Clear,
    Up,
    Down,
    Move(Motion),
    /// Takes out what lies between the cursor and where it would move.
    Cut(Motion),
    /// Ctrl-D: cuts a character, or ends on an empty line.
    CutOrEnd,
    /// Understood, and of no use.
    Nothing,
    /// Not typed by anybody who means it: bytes that are no ASCII, a broken line.
    Refused,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Motion {
    Left,
    Right,
    WordLeft,
    WordRight,
    Home,
    End,
}

impl Editor {
    /// Shows a prompt and begins an empty line behind it.
    pub fn begin(&mut self, prompt: &str, is_secret: bool, out: &mut Vec<u8>) {
        self.prompt = prompt.bytes().take(PROMPT_BYTES_MAX).collect();
        self.is_secret = is_secret;
        self.line.clear();
        (self.cursor, self.from, self.back) = (0, 0, 0);
        self.escape = Escape::None;
        self.show_again(out);
    }

    /// The same with a line that is there already, to be changed.
    pub fn begin_with(&mut self, prompt: &str, text: &str, out: &mut Vec<u8>) {
        self.begin(prompt, false, out);
        self.line = text.bytes().take(LINE_BYTES_MAX).collect();
        self.cursor = self.line.len();
        self.show(out);
    }

    /// Prints lines in between: the prompt, or a new one, and what was typed stand below them
    /// afterwards.
    pub fn interject(&mut self, text: &[u8], prompt: Option<&str>, out: &mut Vec<u8>) {
        let width = self.prompt.len() + self.shown.len();
        if let Some(prompt) = prompt {
            self.prompt = prompt.bytes().take(PROMPT_BYTES_MAX).collect();
        }
        out.push(b'\r');
        out.extend(std::iter::repeat_n(b' ', width));
        out.push(b'\r');
        out.extend_from_slice(text);
        self.show_again(out);
    }

    /// Prompt and line on a line of the terminal that is empty.
    fn show_again(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.prompt);
        self.shown.clear();
        self.at = 0;
        self.show(out);
    }

    /// Takes a byte. `words` completes what stands before the cursor: the words that may stand in
    /// place of the last one there.
    pub fn byte(
        &mut self,
        byte: u8,
        words: impl Fn(&str) -> Vec<&'static str>,
        out: &mut Vec<u8>,
    ) -> Option<Event> {
        // CR, LF or both end a line, as the terminal has it.
        if std::mem::replace(&mut self.was_return, byte == b'\r') && byte == b'\n' {
            return None;
        }
        let key = self.key(byte)?;
        let mut event = None;
        match key {
            Key::Return => event = Some(self.finish(out)),
            Key::Interrupt => {
                out.extend_from_slice(b"^C\r\n");
                self.line.clear();
                event = Some(Event::Interrupted);
            }
            Key::CutOrEnd if self.line.is_empty() => event = Some(Event::Ended),
            Key::Clear => event = Some(Event::Cleared),
            Key::Tab if !self.is_secret => self.complete(&words, out),
            Key::Up | Key::Down if self.is_secret => out.push(BELL),
            Key::Up => self.browse(true, out),
            Key::Down => self.browse(false, out),
            Key::Char(byte) => {
                let is_in = self.line.insert(self.cursor, byte).is_ok();
                self.cursor += usize::from(is_in);
                if !is_in {
                    out.push(BELL);
                }
            }
            Key::Tab | Key::Refused => out.push(BELL),
            Key::Nothing => {}
            Key::Move(motion) => self.cursor = self.target(motion),
            Key::Cut(motion) => self.cut(motion),
            Key::CutOrEnd => self.cut(Motion::Right),
        }
        if event.is_none() {
            self.show(out);
        }
        event
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> Event {
        out.extend_from_slice(b"\r\n");
        let line = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&line).into_owned();
        let is_new = self.history.back() != Some(&line);
        if !self.is_secret && is_new && !text.trim().is_empty() {
            if self.history.is_full() {
                self.history.pop_front();
            }
            let _room_was_made = self.history.push_back(line);
        }
        (self.cursor, self.back) = (0, 0);
        Event::Line(text)
    }

    fn key(&mut self, byte: u8) -> Option<Key> {
        match self.escape {
            Escape::None => match byte {
                0x1b => {
                    self.escape = Escape::Begun;
                    None
                }
                // A break on a serial line comes as a zero byte.
                0 => Some(Key::Nothing),
                other => Some(plain_key(other)),
            },
            Escape::Begun => {
                self.escape = Escape::None;
                match byte {
                    b'[' | b'O' => {
                        self.escape = Escape::Sequence { first: 0, last: 0 };
                        None
                    }
                    // A lone Escape, and another.
                    0x1b => {
                        self.escape = Escape::Begun;
                        None
                    }
                    b'b' => Some(Key::Move(Motion::WordLeft)),
                    b'f' => Some(Key::Move(Motion::WordRight)),
                    b'd' => Some(Key::Cut(Motion::WordRight)),
                    BACKSPACE | 0x7f => Some(Key::Cut(Motion::WordLeft)),
                    other => Some(plain_key(other)),
                }
            }
            Escape::Sequence { first, last } => {
                let digit = |number: u8| number.saturating_mul(10).saturating_add(byte - b'0');
                self.escape = match byte {
                    b'0'..=b'9' => Escape::Sequence { first, last: digit(last) },
                    b';' => Escape::Sequence { first: last, last: 0 },
                    0x20..=0x3f => self.escape,
                    _ => Escape::None,
                };
                (self.escape == Escape::None).then(|| sequence_key(byte, first, last))
            }
        }
    }

    /// Where the cursor would be.
    fn target(&self, motion: Motion) -> usize {
        match motion {
            Motion::Left => self.cursor.saturating_sub(1),
            Motion::Right => (self.cursor + 1).min(self.line.len()),
            Motion::WordLeft => self.word_left(),
            Motion::WordRight => self.word_right(),
            Motion::Home => 0,
            Motion::End => self.line.len(),
        }
    }

    fn cut(&mut self, motion: Motion) {
        let to = self.target(motion);
        let gone = self.cursor.min(to)..self.cursor.max(to);
        self.cursor = gone.start;
        let kept = self.line.iter().enumerate().filter(|(index, _)| !gone.contains(index));
        self.line = kept.map(|(_, byte)| *byte).collect();
    }

    fn word_left(&self) -> usize {
        let before = self.line.get(..self.cursor).unwrap_or_default();
        let end = before.iter().rposition(|byte| *byte != b' ').map_or(0, |at| at + 1);
        let word = before.get(..end).unwrap_or_default();
        word.iter().rposition(|byte| *byte == b' ').map_or(0, |at| at + 1)
    }

    fn word_right(&self) -> usize {
        let after = self.line.get(self.cursor..).unwrap_or_default();
        let begin = after.iter().position(|byte| *byte != b' ').unwrap_or(after.len());
        let word = after.get(begin..).unwrap_or_default();
        let length = word.iter().position(|byte| *byte == b' ').unwrap_or(word.len());
        self.cursor + begin + length
    }

    fn browse(&mut self, is_up: bool, out: &mut Vec<u8>) {
        let to = if is_up { self.back + 1 } else { self.back.saturating_sub(1) };
        if to > self.history.len() || to == self.back {
            out.push(BELL);
            return;
        }
        if self.back == 0 {
            self.draft = self.line.clone();
        }
        self.back = to;
        self.line = match to {
            0 => self.draft.clone(),
            _ => self.history.iter().rev().nth(to - 1).cloned().unwrap_or_default(),
        };
        self.cursor = self.line.len();
    }

    fn complete(&mut self, words: &impl Fn(&str) -> Vec<&'static str>, out: &mut Vec<u8>) {
        let before = self.line.get(..self.cursor).unwrap_or_default();
        let before = String::from_utf8_lossy(before).into_owned();
        let begun = before.rsplit(' ').next().unwrap_or_default();
        let fitting: Vec<&str> =
            words(&before).into_iter().filter(|word| word.starts_with(begun)).collect();
        let Some(first) = fitting.first() else {
            out.push(BELL);
            return;
        };
        let is_common =
            |length: &usize| fitting.iter().all(|word| word.get(..*length) == first.get(..*length));
        let common = (begun.len()..=first.len()).rev().find(is_common).unwrap_or(begun.len());
        let rest = first.get(begun.len()..common).unwrap_or_default();
        let end = if fitting.len() == 1 { " " } else { "" };
        for byte in rest.bytes().chain(end.bytes()) {
            if self.line.insert(self.cursor, byte).is_ok() {
                self.cursor += 1;
            }
        }
        if fitting.len() > 1 && rest.is_empty() {
            let mut list = Vec::new();
            for line in super::render::fold(&fitting.join(" "), "") {
                list.extend_from_slice(line.as_bytes());
                list.extend_from_slice(b"\r\n");
            }
            self.interject(&list, None, out);
        }
    }

    /// Brings the terminal from what it shows to what it is to show.
    fn show(&mut self, out: &mut Vec<u8>) {
        let width = COLUMNS.saturating_sub(self.prompt.len()).max(8);
        let (line, cursor) = if self.is_secret { (&[][..], 0) } else { (&*self.line, self.cursor) };
        if cursor < self.from || cursor >= self.from + width || line.len() < width {
            self.from = if line.len() < width { 0 } else { cursor.saturating_sub(width / 2) };
        }
        let end = line.len().min(self.from + width - 1);
        let wanted = line.get(self.from..end).unwrap_or_default();
        let column = cursor - self.from;
        let same = wanted.iter().zip(&self.shown).take_while(|(a, b)| a == b).count();
        let is_changed = same < wanted.len() || same < self.shown.len();
        if is_changed {
            move_cursor(&self.shown, self.at, same, out);
            out.extend_from_slice(wanted.get(same..).unwrap_or_default());
            let left_over = self.shown.len().saturating_sub(wanted.len());
            out.extend(std::iter::repeat_n(b' ', left_over));
            out.extend(std::iter::repeat_n(BACKSPACE, left_over));
            self.at = wanted.len();
        }
        self.shown = wanted.iter().copied().collect();
        move_cursor(&self.shown, self.at, column, out);
        self.at = column;
    }
}

/// To the left by backspaces, to the right by printing again what stands there.
fn move_cursor(shown: &[u8], from: usize, to: usize, out: &mut Vec<u8>) {
    match shown.get(from..to) {
        Some(between) => out.extend_from_slice(between),
        None => out.extend(std::iter::repeat_n(BACKSPACE, from.saturating_sub(to))),
    }
}

const fn plain_key(byte: u8) -> Key {
    match byte {
        b'\r' | b'\n' => Key::Return,
        b'\t' => Key::Tab,
        0x01 => Key::Move(Motion::Home),
        0x02 => Key::Move(Motion::Left),
        0x03 => Key::Interrupt,
        0x04 => Key::CutOrEnd,
        0x05 => Key::Move(Motion::End),
        0x06 => Key::Move(Motion::Right),
        BACKSPACE | 0x7f => Key::Cut(Motion::Left),
        0x0b => Key::Cut(Motion::End),
        0x0c => Key::Clear,
        0x0e => Key::Down,
        0x10 => Key::Up,
        0x15 => Key::Cut(Motion::Home),
        0x17 => Key::Cut(Motion::WordLeft),
        0x20..=0x7e => Key::Char(byte),
        _ => Key::Refused,
    }
}

/// ESC [ and ESC O sequences of VT100, linux(4) and xterm.
const fn sequence_key(end: u8, first: u8, last: u8) -> Key {
    // xterm: 1;5C is Right with Ctrl, 1;3C with Alt.
    let is_word = first == 1 && (last == 5 || last == 3);
    match (end, last) {
        (b'A', _) => Key::Up,
        (b'B', _) => Key::Down,
        (b'C', _) if is_word => Key::Move(Motion::WordRight),
        (b'D', _) if is_word => Key::Move(Motion::WordLeft),
        (b'C', _) => Key::Move(Motion::Right),
        (b'D', _) => Key::Move(Motion::Left),
        (b'H', _) | (b'~', 1 | 7) => Key::Move(Motion::Home),
        (b'F', _) | (b'~', 4 | 8) => Key::Move(Motion::End),
        (b'~', 3) => Key::Cut(Motion::Right),
        _ => Key::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a printer with an erasing backspace would show, and where.
    #[derive(Default)]
    struct Terminal {
        rows: Vec<Vec<u8>>,
        column: usize,
        bells: usize,
    }

    impl Terminal {
        fn print(&mut self, bytes: &[u8]) {
            if self.rows.is_empty() {
                self.rows.push(Vec::new());
            }
            for byte in bytes {
                let row = self.rows.last_mut().unwrap();
                match *byte {
                    b'\r' => self.column = 0,
                    b'\n' => self.rows.push(Vec::new()),
                    BELL => self.bells += 1,
                    BACKSPACE => self.column = self.column.checked_sub(1).expect("off the line"),
                    byte => {
                        assert!((0x20..0x7f).contains(&byte), "{byte:#x} is no text");
                        assert!(self.column < COLUMNS, "beyond the last column");
                        if row.len() <= self.column {
                            row.resize(self.column + 1, b' ');
                        }
                        row[self.column] = byte;
                        self.column += 1;
                    }
                }
            }
        }

        fn row(&self) -> String {
            let row = String::from_utf8(self.rows.last().unwrap().clone()).unwrap();
            row.trim_end().to_owned()
        }
    }

    fn words(before: &str) -> Vec<&'static str> {
        match before.contains(' ') {
            true => vec!["on", "off"],
            false => vec!["status", "switchover", "support", "hold"],
        }
    }

    struct Typist {
        editor: Editor,
        terminal: Terminal,
    }

    impl Typist {
        fn new() -> Self {
            let mut typist = Self { editor: Editor::default(), terminal: Terminal::default() };
            typist.begin(false);
            typist
        }

        fn begin(&mut self, is_secret: bool) {
            let mut out = Vec::new();
            self.editor.begin("tandem> ", is_secret, &mut out);
            self.terminal.print(&out);
        }

        fn types(&mut self, bytes: &[u8]) -> Vec<Event> {
            let mut events = Vec::new();
            for byte in bytes {
                let mut out = Vec::new();
                let event = self.editor.byte(*byte, words, &mut out);
                self.terminal.print(&out);
                if matches!(event, Some(Event::Cleared | Event::Ended)) {
                    self.terminal = Terminal::default();
                }
                if event.is_some() {
                    self.begin(false);
                } else {
                    self.is_as_shown();
                }
                events.extend(event);
            }
            events
        }

        /// The terminal shows the line, or the part around the cursor.
        fn is_as_shown(&self) {
            let (editor, row) = (&self.editor, self.terminal.row());
            let shown = String::from_utf8(editor.shown.to_vec()).unwrap();
            assert_eq!(row, format!("tandem> {shown}").trim_end());
            assert_eq!(self.terminal.column, 8 + editor.at);
            if !editor.is_secret {
                let line = String::from_utf8(editor.line.to_vec()).unwrap();
                assert!(line.contains(&shown));
                assert_eq!(editor.from + editor.at, editor.cursor);
            }
        }
    }

    fn line(text: &str) -> Vec<Event> {
        vec![Event::Line(text.to_owned())]
    }

    #[test]
    fn a_line_is_typed_and_edited() {
        for (bytes, expected) in [
            (&b"status\r"[..], "status"),
            (b"status\r\n", "status"),
            (b"stattus\x7f\x7f\x7fus\n", "status"),
            (b"tatus\x01s\r", "status"),
            (b"statu\x01\x05s\r", "status"),
            (b"xstatus\x1b[H\x1b[3~\r", "status"),
            (b"xstatus\x1b[1~\x04\r", "status"),
            (b"sttus\x1b[D\x1b[D\x1b[Da\r", "status"),
            (b"hold on\x17off\r", "hold off"),
            (b"hold on\x15status\r", "status"),
            (b"hold on\x02\x02\x0boff\r", "hold off"),
            (b"old on\x1b[1;5D\x1bbh\x1bf\x1b[1;5C!\r", "hold on!"),
            (b"hold on\x1bb\x1bdoff\r", "hold off"),
            (b"hold \xc3\xa9on\0\r", "hold on"),
            (b"status\x1b[5~\x1b[99;99Z\x1bOP\r", "status"),
            (b"\x1b\x1b[Dstatus\r", "status"),
        ] {
            let mut typist = Typist::new();
            assert_eq!(typist.types(bytes), line(expected), "{bytes:?}");
        }
    }

    #[test]
    fn history_is_walked_and_comes_back_to_what_was_typed() {
        let mut typist = Typist::new();
        typist.types(b"vip\rlink\rlink\r  \r");
        assert_eq!(typist.types(b"st\x10\x10\x0e\x0e\x05atus\r"), line("status"));
        assert_eq!(typist.types(b"\x1b[A\x1b[A\r"), line("link"));
        assert_eq!(typist.types(b"\x1b[A\x1b[A\x1b[A\x1b[A\r"), line("vip"));
        for count in 0..40 {
            typist.types(format!("log -n {count}\r").as_bytes());
        }
        assert_eq!(typist.types(&[&[0x10; 99][..], b"\r"].concat()), line("log -n 24"));
        assert!(typist.terminal.bells > 50);
    }

    #[test]
    fn words_are_completed_and_listed() {
        let mut typist = Typist::new();
        assert_eq!(typist.types(b"h\to\tn\r"), line("hold on"));
        assert_eq!(typist.types(b"s\tw\t\r"), line("switchover "));
        let rows: Vec<_> = typist.terminal.rows.iter().map(|row| row.trim_ascii_end()).collect();
        assert!(rows.contains(&&b"status switchover support"[..]), "{rows:?}");
        assert_eq!(typist.types(b"x\t\r"), line("x"));
    }

    #[test]
    fn a_secret_is_neither_shown_nor_remembered() {
        let mut typist = Typist::new();
        typist.types(b"status\r");
        typist.terminal = Terminal::default();
        typist.begin(true);
        assert_eq!(typist.types(b"pass\x7f\tword\x10\x1b[D!"), []);
        assert_eq!(typist.terminal.row(), "tandem>");
        assert_eq!(typist.types(b"\r"), line("paswor!d"));
        assert_eq!(typist.types(b"\x10\r"), line("status"));
    }

    #[test]
    fn a_line_that_is_too_long_is_refused_and_a_long_one_scrolls() {
        let mut typist = Typist::new();
        typist.types(&[b'a'; 2 * LINE_BYTES_MAX]);
        assert_eq!(typist.terminal.bells, LINE_BYTES_MAX);
        typist.types(&b"\x1b[D".repeat(LINE_BYTES_MAX));
        typist.types(b"\x0b\x7f\x7fstatus");
        assert_eq!(typist.types(b"\r"), line("status"));
    }

    #[test]
    fn control_c_drops_a_line_and_control_d_ends_on_an_empty_one() {
        let mut typist = Typist::new();
        assert_eq!(typist.types(b"switchover\x03"), [Event::Interrupted]);
        assert_eq!(typist.types(b"a\x7f\x04"), [Event::Ended]);
        assert_eq!(typist.types(b"\x0c"), [Event::Cleared]);
    }

    #[test]
    fn lines_in_between_leave_the_line_as_it_was() {
        let mut typist = Typist::new();
        typist.types(b"switch");
        let mut out = Vec::new();
        typist.editor.interject(b"a note\r\n", None, &mut out);
        typist.terminal.print(&out);
        typist.is_as_shown();
        assert_eq!(typist.types(b"over\r"), line("switchover"));
    }

    /// Any bytes: nothing panics, and the terminal shows the line (checked after every one).
    #[test]
    fn any_bytes_are_survived() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..200 {
            let mut typist = Typist::new();
            for _ in 0..400 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let byte = (state >> 56) as u8;
                // Escape sequences, more often than they come by chance.
                let bytes: &[u8] = match byte % 16 {
                    0 => &[0x1b, b'[', b'A' + byte / 16],
                    1 => b"\x1b[1;5D",
                    2 => b"\t",
                    _ => &[byte],
                };
                typist.types(bytes);
            }
        }
    }
}
