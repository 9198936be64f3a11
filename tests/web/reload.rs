//! Reload: another configuration under load, without one failed request.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tandem::web::site::Redirect;

use crate::backend::{Backend, Mode};
use crate::client::{Client, get};
use crate::front::{Front, Tree};

fn front() -> (Front, [Backend; 2]) {
    let backends = Backend::pair();
    (Front::start(backends.each_ref().map(|backend| backend.address)), backends)
}

fn redirect(to: &str) -> Redirect {
    toml::from_str(&format!("from = \"/moved\"\nto = \"{to}\"")).unwrap()
}

#[test]
fn ten_thousand_requests_and_a_reload_every_few_milliseconds_none_fails() {
    let (front, _backends) = front();
    let other = Tree::new();
    other.write("range.txt", "other");
    let (failed, seen) = (AtomicUsize::new(0), [AtomicUsize::new(0), AtomicUsize::new(0)]);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let visitors: Vec<_> = (0..4)
            .map(|number| {
                let (failed, seen, address) = (&failed, &seen, front.address);
                scope.spawn(move || {
                    let mut client = Client::connect(address);
                    for round in 0..2500 {
                        if round % 100 == 0 {
                            client = Client::connect(address);
                        }
                        let target = if number % 2 == 0 { "/range.txt" } else { "/t.php" };
                        let answer = client.get(target);
                        let is_good = answer.status == 200 && answer.is_whole;
                        failed.fetch_add(usize::from(!is_good), Ordering::Relaxed);
                        if number % 2 == 0 {
                            let which = usize::from(answer.body == b"other");
                            seen[which].fetch_add(1, Ordering::Relaxed);
                        }
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            let mut reloads = 0;
            while !is_over.load(Ordering::Relaxed) {
                reloads += 1;
                let is_other = reloads % 2 == 1;
                front
                    .reload(|config| {
                        config.php_requests_max = 2 + reloads % 7;
                        if is_other {
                            config.root = other.root.to_str().unwrap().to_owned();
                        }
                    })
                    .unwrap();
                std::thread::sleep(Duration::from_millis(5));
            }
            assert!(reloads > 20, "{reloads}");
        });
        let ended: Vec<_> = visitors.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        is_over.store(true, Ordering::Relaxed);
        assert!(ended.iter().all(Result::is_ok));
    });
    assert_eq!(failed.into_inner(), 0);
    let seen = seen.map(AtomicUsize::into_inner);
    assert!(seen.iter().all(|&count| count > 100), "both roots were served: {seen:?}");
    assert_eq!(front.status().in_flight, 0);
}

#[test]
fn a_request_ends_as_it_began_and_the_next_one_is_under_the_new_words() {
    let (front, backends) = front();
    backends.iter().for_each(|backend| backend.set(Mode::Slow(Duration::from_millis(300))));
    let mut busy = Client::connect(front.address);
    busy.request("GET", "/t.php", "");
    let mut idle = Client::connect(front.address);
    assert_eq!(idle.get("/moved").status, 404);
    front.wait("it is at php", |status| status.in_flight == 1);
    front.reload(|config| config.redirect = vec![redirect("/there")]).unwrap();
    assert_eq!(idle.get("/moved").header("location"), Some("/there"), "an idle connection");
    let answer = busy.answer();
    assert_eq!((answer.status, answer.text().as_str()), (200, "slow"));
    assert_eq!(busy.get("/moved").header("location"), Some("/there"));
    front.reload(|_| {}).unwrap();
    assert_eq!(busy.get("/moved").status, 404, "as it was");
}

#[test]
fn what_takes_a_restart_is_refused_whole() {
    let (front, _backends) = front();
    let why = front.reload(|config| {
        config.port += 1;
        config.redirect = vec![redirect("/there")];
    });
    assert!(why.is_err_and(|why| why.contains("web.port") && why.contains("restart")));
    assert_eq!(get(front.address, "/moved").status, 404);
}
