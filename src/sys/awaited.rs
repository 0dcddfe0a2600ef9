//! An eventfd that a tokio task waits for.

use std::fmt;
use std::os::fd::OwnedFd;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::EventFd;

/// A duplicate of an eventfd, registered with the runtime it was made on.
pub struct Awaited(AsyncFd<OwnedFd>);

impl Awaited {
    /// To be made on a tokio runtime.
    pub fn new(event: &EventFd) -> std::io::Result<Awaited> {
        let own = event.duplicate()?;
        // SAFETY: the descriptor has to be open, and the same one, while it is registered: an
        // OwnedFd is both until it is dropped, and the AsyncFd owns it.
        let registered = unsafe { AsyncFd::register_with_interest(own, Interest::READABLE) };
        Ok(Awaited(registered?))
    }

    /// Returns when it was notified since the last return. What is pending is left for
    /// `EventFd::take`.
    pub async fn wait(&self) {
        if let Ok(mut ready) = self.0.readable().await {
            return ready.clear_ready();
        }
        // The runtime is ending.
        std::future::pending().await
    }
}

impl fmt::Debug for Awaited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Awaited").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn every_notification_after_a_take_is_seen() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let event = EventFd::new().unwrap();
        runtime.block_on(async {
            let awaited = Awaited::new(&event).unwrap();
            let quiet = tokio::time::timeout(Duration::from_millis(20), awaited.wait());
            assert!(quiet.await.is_err(), "nobody has notified");
            for _ in 0..200 {
                event.take();
                std::thread::scope(|scope| drop(scope.spawn(|| event.notify())));
                let woken = tokio::time::timeout(Duration::from_secs(5), awaited.wait());
                woken.await.expect("a notification was lost");
            }
        });
    }
}
