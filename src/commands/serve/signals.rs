//! Signals to stop, and a bound on how long that takes.

use std::time::Duration;

use crate::commands::error::{Result, failed};

/// How much longer than its drain may take the process lives at most.
const LAST_MOMENTS: Duration = Duration::from_secs(1);

/// The signals to stop: the first begins an orderly end, a second one ends the process at once.
pub(super) struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(not(unix))]
    interrupt: tokio::signal::windows::CtrlC,
}

impl Signals {
    /// Installs the handlers: from now on a signal does not end the process by itself.
    pub(super) fn install() -> Result<Self> {
        let no_signals = |error: std::io::Error| failed(format!("signals: {error}"));
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            let terminate = signal(SignalKind::terminate()).map_err(no_signals)?;
            let interrupt = signal(SignalKind::interrupt()).map_err(no_signals)?;
            Ok(Self { terminate, interrupt })
        }
        #[cfg(not(unix))]
        Ok(Self { interrupt: tokio::signal::windows::ctrl_c().map_err(no_signals)? })
    }

    /// The exit code of a process that the next signal ends.
    async fn next(&mut self) -> i32 {
        #[cfg(unix)]
        return tokio::select! {
            _ = self.terminate.recv() => 128 + 15,
            _ = self.interrupt.recv() => 128 + 2,
        };
        #[cfg(not(unix))]
        {
            self.interrupt.recv().await;
            1
        }
    }

    /// Ready at the first signal. From then on the process ends at the second, and in any case a moment after `drain`.
    pub(super) async fn ended(mut self, drain: Duration) {
        self.next().await;
        tokio::spawn(async move {
            let code = self.next().await;
            tracing::error!("a second signal: ending at once");
            exit(code);
        });
        let watch = std::thread::Builder::new().name("last-moments".to_owned()).spawn(move || {
            std::thread::sleep(drain + LAST_MOMENTS);
            tracing::error!("stopped: something did not end within {} s", drain.as_secs_f32());
            exit(1);
        });
        if let Err(error) = watch {
            tracing::warn!(%error, "no thread watches over the end");
        }
    }
}

/// Ends the process, also where a library's own clean-up hangs.
fn exit(code: i32) -> ! {
    let _ = std::thread::Builder::new().spawn(|| {
        std::thread::sleep(Duration::from_millis(200));
        std::process::abort();
    });
    std::process::exit(code)
}
