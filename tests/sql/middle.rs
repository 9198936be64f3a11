//! A cable between the splitter and a real server that fails at a chosen moment.
//!
//! In: a server's port, what makes it fail, and how. Out: a port. Must not: invent anything of a
//! server but the one answer that no honest server gives.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

/// What happens once a command that has these bytes in it goes by.
#[derive(Clone, Copy)]
pub(super) enum Fault {
    /// The server gets it, and its answer does not arrive.
    Cut,
    /// This is answered in the server's place.
    Say(&'static [u8]),
}

pub(super) struct Middle {
    pub(super) port: u16,
    is_over: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Middle {
    pub(super) fn start(server: u16, trigger: &'static [u8], fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let port = listener.local_addr().expect("bound").port();
        let is_over = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&is_over);
        let thread = thread::spawn(move || {
            while let Ok((near, _)) = listener.accept() {
                if flag.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(far) = TcpStream::connect(("127.0.0.1", server)) else { continue };
                carry(near, far, trigger, fault);
            }
        });
        Self { port, is_over, thread: Some(thread) }
    }
}

impl Drop for Middle {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Carries bytes both ways on two threads, which end with the connection.
fn carry(near: TcpStream, far: TcpStream, trigger: &'static [u8], fault: Fault) {
    let is_cut = Arc::new(AtomicBool::new(false));
    let pair = |stream: &TcpStream| stream.try_clone().expect("clones");
    let (mut from_near, mut to_far) = (pair(&near), pair(&far));
    let (mut from_far, mut to_near) = (far, near);
    let flag = Arc::clone(&is_cut);
    let mut answers = pair(&to_near);
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = from_near.read(&mut buffer) {
            let bytes = &buffer[..count];
            let is_hit = bytes.windows(trigger.len()).any(|it| it == trigger);
            match fault {
                Fault::Say(answer) if is_hit => {
                    let _ = answers.write_all(answer);
                    continue;
                }
                Fault::Cut if is_hit => flag.store(true, Ordering::SeqCst),
                Fault::Cut | Fault::Say(_) => {}
            }
            if to_far.write_all(bytes).is_err() {
                break;
            }
        }
        let _ = to_far.shutdown(std::net::Shutdown::Both);
    });
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = from_far.read(&mut buffer) {
            if is_cut.load(Ordering::SeqCst) || to_near.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        let _ = to_near.shutdown(std::net::Shutdown::Both);
    });
}
