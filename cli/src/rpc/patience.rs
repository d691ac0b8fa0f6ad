//! How long the asking end waits for a daemon: one that hangs takes connections and never answers.
//!
//! With `--timeout` the whole call is over a little after that time, which the daemon itself keeps and then says
//! what it waited for. Without, a command may wait for peers as long as it takes; so while nothing comes, the
//! daemon is asked beside for its version, and one that does not give even that hangs.

use super::client::Remote;
use super::error::RpcError;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// The patience with one call. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Patience {
    /// `None` for this process, which is waited for.
    daemon: Option<Box<Remote>>,
    given: Option<Given>,
    pace: Pace,
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
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            silence: SILENCE_TIME_MAX,
            sign_of_life: SIGN_OF_LIFE_TIME_MAX,
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
            pace: Pace::default(),
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
                let time = given.as_secs_f64();
                Err(daemon.hangs(&format!("nothing more came from it within the {time} s of --timeout")))
            }
            () = self.falls_silent(daemon) => {
                let silent = self.pace.silence + self.pace.sign_of_life;
                let time = silent.as_secs_f64();
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

    async fn falls_silent(&self, daemon: &Remote) {
        loop {
            sleep(self.pace.silence).await;
            let sign = timeout(self.pace.sign_of_life, daemon.gives_a_sign()).await;
            if !sign.unwrap_or(false) {
                return;
            }
        }
    }
}

/// How much later than the daemon we end a call: it says more.
const MARGIN: Duration = Duration::from_secs(2);
/// After how long without a word a daemon is asked whether it is there.
const SILENCE_TIME_MAX: Duration = Duration::from_secs(10);
/// How long that answer, which needs no disk and no peer, may take on a machine that has much to do.
const SIGN_OF_LIFE_TIME_MAX: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

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
        };
        let error = of(&listener, pace).wait(pending::<()>()).await;
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
        };
        // Its answer comes after it was asked three times whether it is there; refusing to say is a sign, too.
        let answer = async {
            for _ in 0..3 {
                let (mut call, _) = listener.accept().await.unwrap();
                let mut head = [0; 4096];
                let length = call.read(&mut head).await.unwrap();
                assert!(head[..length].starts_with(b"POST /api/v0/version"));
                let refusal =
                    b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                call.write_all(refusal).await.unwrap();
            }
        };
        of(&listener, pace).wait(answer).await.unwrap();
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
