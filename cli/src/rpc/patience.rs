//! How long the asking end waits for a daemon: one that hangs takes connections and never answers.
//!
//! With `--timeout` the whole call is over a little after that time, which the daemon itself keeps and then says
//! what it waited for. Without, a command may wait for peers as long as it takes; so while nothing comes, the
//! daemon is asked beside for its version, and one that does not give even that, several times in a row, hangs.
//! That it hangs is said of no daemon that answers anything.

use super::client::Remote;
use super::error::RpcError;
use crate::output::note;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// The patience with one call. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Patience {
    /// `None` for this process, which is waited for.
    daemon: Option<Box<Remote>>,
    given: Option<Given>,
    pace: Pace,
    /// Whether it was told already that the daemon gives no sign of life.
    told: Arc<AtomicBool>,
}

/// What `--timeout` said.
#[derive(Debug, Clone, Copy)]
struct Given {
    time: Duration,
    until: Instant,
}

/// How a daemon is asked beside.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// After how long without a word.
    silence: Duration,
    /// How long it has for that answer.
    sign_of_life: Duration,
    /// How often in a row it may give none.
    misses: NonZeroU32,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            silence: SILENCE_TIME_MAX,
            sign_of_life: SIGN_OF_LIFE_TIME_MAX,
            misses: MISSES_MAX,
        }
    }
}

impl Patience {
    /// With a daemon, from now on; `time` as `--timeout` gives it.
    pub(super) fn with(daemon: &Remote, time: Option<Duration>) -> Self {
        let given = time.and_then(|time| {
            let until = Instant::now().checked_add(time.checked_add(MARGIN)?)?;
            Some(Given { time, until })
        });
        Self {
            daemon: Some(Box::new(daemon.clone())),
            given,
            ..Self::default()
        }
    }

    /// Waits for a part of the answer for as long as the daemon may take.
    pub(super) async fn wait<T>(&self, part: impl Future<Output = T>) -> Result<T, RpcError> {
        let Some(daemon) = &self.daemon else {
            return Ok(part.await);
        };
        tokio::select! {
            biased;
            part = part => Ok(part),
            given = self.is_over() => {
                // What flows it lets flow beyond the time, and whoever reads slowly waits the longer.
                if is_alive(daemon, LAST_SIGN_TIME_MAX).await {
                    return Err(RpcError::too_slow(given, None));
                }
                let time = given.as_secs_f64();
                Err(daemon.hangs(&format!("nothing more came from it within the {time} s of --timeout")))
            }
            silent = self.falls_silent(daemon) => {
                let time = silent.as_secs();
                Err(daemon.hangs(&format!("nothing came from it for {time} s, not even its version")))
            }
        }
    }

    async fn is_over(&self) -> Duration {
        match self.given {
            Some(given) => {
                sleep_until(given.until).await;
                given.time
            }
            None => std::future::pending().await,
        }
    }

    /// How long nothing came, once it has given no sign of life often enough.
    async fn falls_silent(&self, daemon: &Remote) -> Duration {
        let mut since = Instant::now();
        let mut misses = 0;
        loop {
            sleep(self.pace.silence).await;
            if is_alive(daemon, self.pace.sign_of_life).await {
                (since, misses) = (Instant::now(), 0);
                continue;
            }
            misses += 1;
            if misses >= self.pace.misses.get() {
                return since.elapsed();
            }
            if !self.told.swap(true, Ordering::Relaxed) {
                let time = since.elapsed().as_secs();
                note(&daemon.is_silent(time));
            }
        }
    }
}

/// Whether a sign of life comes from it in `time`.
async fn is_alive(daemon: &Remote, time: Duration) -> bool {
    let sign = timeout(time, daemon.gives_a_sign()).await;
    sign.unwrap_or(false)
}

/// How much later than the daemon we end a call: it says more.
const MARGIN: Duration = Duration::from_secs(2);
/// After how long without a word a daemon is asked whether it is there.
const SILENCE_TIME_MAX: Duration = Duration::from_secs(10);
/// How long that answer, which needs no disk and no peer, may take on a machine that has much to do.
const SIGN_OF_LIFE_TIME_MAX: Duration = Duration::from_secs(20);
/// How often in a row it may stay out: a machine that swaps stands still for longer than one takes.
const MISSES_MAX: NonZeroU32 = const { NonZeroU32::new(3).unwrap() };
/// How long it may take at the end of the time that was given, when somebody waits for the end.
const LAST_SIGN_TIME_MAX: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    /// Says no to a question for the version, and gives the question's head.
    async fn refuse(mut call: TcpStream) -> String {
        let mut head = [0; 4096];
        let length = call.read(&mut head).await.unwrap();
        let head = String::from_utf8(head[..length].to_vec()).unwrap();
        assert!(head.starts_with("POST /api/v0/version"), "{head}");
        let refusal = "HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n";
        call.write_all(refusal.as_bytes()).await.unwrap();
        head
    }

    fn of(listener: &TcpListener, pace: Pace) -> Patience {
        let remote = Remote::new(listener.local_addr().unwrap(), None).unwrap();
        Patience {
            pace,
            ..Patience::with(&remote, None)
        }
    }

    #[tokio::test]
    async fn a_daemon_that_takes_calls_and_answers_none_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let pace = Pace {
            silence: Duration::from_millis(1),
            sign_of_life: Duration::from_millis(1),
            ..Pace::default()
        };
        let patience = of(&listener, pace);
        let error = patience.wait(pending::<()>()).await;
        assert!(patience.told.load(Ordering::Relaxed));
        let told = error.unwrap_err().to_string();
        let named = format!("the daemon at {}", listener.local_addr().unwrap());
        assert!(told.starts_with(&named), "{told}");
        assert!(told.contains("does not answer"), "{told}");
    }

    #[tokio::test]
    async fn a_daemon_that_only_takes_long_is_waited_for() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let pace = Pace {
            silence: Duration::from_millis(1),
            sign_of_life: Duration::from_secs(3600),
            ..Pace::default()
        };
        // Its answer comes after it was asked three times whether it is there; refusing to say is a sign, too.
        let answer = async {
            for _ in 0..3 {
                // Each on a connection of its own, which is given back at once.
                let (call, _) = listener.accept().await.unwrap();
                let head = refuse(call).await.to_ascii_lowercase();
                assert!(head.contains("connection: close\r\n"), "{head}");
            }
        };
        of(&listener, pace).wait(answer).await.unwrap();
    }

    #[tokio::test]
    async fn signs_of_life_that_stay_out_are_forgotten_when_one_comes() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let pace = Pace {
            silence: Duration::from_millis(1),
            sign_of_life: Duration::from_secs(2),
            misses: const { NonZeroU32::new(2).unwrap() },
        };
        // Every second one stays out, which is never two in a row.
        let answer = async {
            for _ in 0..2 {
                let (mut unanswered, _) = listener.accept().await.unwrap();
                // Its end, when it is given up.
                let mut head = Vec::new();
                unanswered.read_to_end(&mut head).await.unwrap();
                let (call, _) = listener.accept().await.unwrap();
                refuse(call).await;
            }
        };
        of(&listener, pace).wait(answer).await.unwrap();
    }

    #[tokio::test]
    async fn a_daemon_that_answers_when_the_time_is_over_is_only_too_slow() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let remote = Remote::new(listener.local_addr().unwrap(), None).unwrap();
        let patience = Patience {
            given: Some(Given {
                time: Duration::from_secs(7),
                until: Instant::now(),
            }),
            ..Patience::with(&remote, None)
        };
        let answer = async {
            let (call, _) = listener.accept().await.unwrap();
            refuse(call).await;
            pending::<()>().await;
        };
        let told = tokio::select! {
            told = patience.wait(pending::<()>()) => told.unwrap_err().to_string(),
            () = answer => unreachable!(),
        };
        assert!(told.contains("more than 7 s (--timeout)"), "{told}");
        assert!(!told.contains("hang"), "{told}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_ends_a_little_after_the_time_that_was_given() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let remote = Remote::new(listener.local_addr().unwrap(), None).unwrap();
        let given = Duration::from_secs(2);
        let patience = Patience::with(&remote, Some(given));
        let early = sleep(given);
        patience.wait(early).await.unwrap();
        let told = patience.wait(pending::<()>()).await.unwrap_err();
        assert!(told.to_string().contains("2 s of --timeout"), "{told}");
        // For ever is longer than a clock can tell.
        let patience = Patience::with(&remote, Some(Duration::MAX));
        patience.wait(async {}).await.unwrap();
    }
}
