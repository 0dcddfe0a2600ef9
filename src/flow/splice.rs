//! When a direction is spliced instead of copied, and when it goes back: a pure policy over what
//! its reads bring and how busy its shard is.
//!
//! A stream is faster when it is copied, while the shard has time left (the kernel receives into
//! cache-hot buffers and sends large pieces); splicing costs less processor time per byte. So a
//! stream without an option is spliced only while the shard has no time left. Large messages in
//! turn are better off spliced on any shard: who waits for one waits for every copy of it (64 KiB
//! each way on one connection: 2.2 times the exchanges of copying).

/// A read of this many bytes is one of a bulk direction.
pub const BULK_READ: u32 = 16 << 10;
/// So many reads in bulk in a row, on a busy shard, move a direction without an option to splicing.
pub const ADAPTIVE_RUN: i8 = 6;
/// A message of so many bytes between two turns of a conversation is a large one.
pub const MESSAGE_MIN: u32 = BULK_READ;
/// One of more bytes is a stream: no pipe holds it at once.
pub const MESSAGE_MAX: u32 = 1 << 20;
/// What a message is measured in: two bytes hold one beyond the largest.
const UNIT: u32 = 64;
const _: () = assert!(MESSAGE_MAX / UNIT < u16::MAX as u32 / 2);
/// So many large messages in a row, on any shard, move a direction without an option to splicing.
pub const MESSAGES_RUN: u8 = 3;
/// So many move one under `option splice-auto`, on any shard.
pub const AUTO_RUN: i8 = 3;
/// So many smaller reads in a row move it back.
pub const SMALL_RUN: i8 = 8;
/// A direction that has rested for so long goes back.
pub const REST_MS: u64 = 1_000;
/// A shard with more load than this is busy, in thousandths.
pub const BUSY: u32 = 950;
/// A shard with less load than this has so much time that directions without an option go back.
pub const IDLE: u32 = 300;
/// Reads in vain in a row, after which a direction is copied for good: what the socket has to be
/// read can't be spliced (urgent data), and waiting for it would never end.
pub const VAIN_MAX: u8 = 4;

/// Length of a window of [`Load`], nanoseconds.
pub const WINDOW_NS: u64 = 10_000_000;
/// A window that is so many times as long says all about the present by itself.
const LONG: u64 = 8;
/// A window's weight in the average: one part in so many.
const WEIGHT: u64 = 4;

/// What the configuration says of a direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Splicing {
    /// It is always copied.
    #[default]
    Never,
    /// No option: while it reads in bulk and the shard is busy.
    Adaptive,
    /// `option splice-auto`: while it reads in bulk.
    Auto,
    /// `option splice-request` or `splice-response`: whenever it may be.
    Always,
}

/// How a direction's bytes are moved.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Engine {
    /// Received into buffers, sent from them.
    #[default]
    Copy,
    /// Through a pipe, without being seen.
    Spliced,
}

/// The engine of a direction and what decides about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Splice {
    /// What the configuration says.
    pub splicing: Splicing,
    /// The engine it has.
    pub engine: Engine,
    /// Reads in a row: in bulk where positive, smaller ones where negative.
    run: i8,
    /// Reads in a row that found nothing although something was announced.
    vain: u8,
    /// Large messages in a row.
    messages: u8,
    /// Bytes since the other direction's last, in units of [`UNIT`].
    message: u16,
}

impl Splice {
    /// Notes the bytes of a read.
    pub fn received(&mut self, bytes: u32) {
        self.vain = 0;
        self.run = if bytes >= BULK_READ {
            self.run.max(0).saturating_add(1)
        } else {
            self.run.min(0).saturating_sub(1)
        };
        let units = u16::try_from(bytes.div_ceil(UNIT)).unwrap_or(u16::MAX);
        self.message = self.message.saturating_add(units);
        if u32::from(self.message) > MESSAGE_MAX / UNIT {
            self.messages = 0;
        }
    }

    /// Notes that the other direction has brought bytes: it is its turn, and a message is over.
    pub fn answered(&mut self) {
        match u32::from(std::mem::take(&mut self.message)) * UNIT {
            0 => {}
            MESSAGE_MIN..=MESSAGE_MAX => self.messages = self.messages.saturating_add(1),
            _ => self.messages = 0,
        }
    }

    /// Notes that a read found nothing.
    pub fn found_nothing(&mut self) {
        self.vain = self.vain.saturating_add(1);
        if self.vain >= VAIN_MAX {
            self.bar();
        }
    }

    /// It can't be spliced: it is copied for good.
    pub fn bar(&mut self) {
        self.splicing = Splicing::Never;
    }

    /// Whether a copied direction is to be spliced, at a load of the shard in thousandths.
    pub fn wants_pipe(&self, load: u32) -> bool {
        match self.splicing {
            Splicing::Never => false,
            Splicing::Adaptive => self.converses() || (self.run >= ADAPTIVE_RUN && load > BUSY),
            Splicing::Auto => self.run >= AUTO_RUN,
            Splicing::Always => true,
        }
    }

    /// Whether a spliced direction that has rested for `rested_ms` is to be copied again.
    pub fn wants_copy(&self, load: u32, rested_ms: u64) -> bool {
        let small = self.run <= -SMALL_RUN || rested_ms >= REST_MS;
        match self.splicing {
            Splicing::Never => true,
            Splicing::Adaptive => small || (load < IDLE && !self.converses()),
            Splicing::Auto => small,
            Splicing::Always => false,
        }
    }

    /// Gives it the other engine. Runs begin anew.
    pub fn switch(&mut self, engine: Engine) {
        self.engine = engine;
        self.run = 0;
        self.vain = 0;
        if engine == Engine::Copy {
            self.messages = 0;
        }
    }

    /// Whether it brings large messages in turn with the other direction.
    fn converses(&self) -> bool {
        self.messages >= MESSAGES_RUN
    }
}

/// How busy a shard is: an average over windows of the share of time in which it works.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    began_ns: u64,
    worked_ns: u64,
    permille: u64,
}

impl Load {
    /// An idle shard's, from this moment on.
    pub fn new(now_ns: u64, worked_ns: u64) -> Load {
        Load {
            began_ns: now_ns,
            worked_ns,
            permille: 0,
        }
    }

    /// Whether a window is over: only then is it worth to ask for the processor time.
    pub fn window_is_over(&self, now_ns: u64) -> bool {
        now_ns.saturating_sub(self.began_ns) >= WINDOW_NS
    }

    /// Ends a window.
    pub fn end_window(&mut self, now_ns: u64, worked_ns: u64) {
        let length = now_ns.saturating_sub(self.began_ns).max(1);
        let worked = worked_ns.saturating_sub(self.worked_ns).min(length);
        let permille = worked * 1_000 / length;
        self.permille = if length >= LONG * WINDOW_NS {
            permille
        } else {
            (self.permille * (WEIGHT - 1) + permille).div_ceil(WEIGHT)
        };
        self.began_ns = now_ns;
        self.worked_ns = worked_ns;
    }

    /// The average, in thousandths.
    pub fn permille(&self) -> u32 {
        u32::try_from(self.permille).unwrap_or(1_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn splice(splicing: Splicing) -> Splice {
        Splice {
            splicing,
            ..Splice::default()
        }
    }

    fn read(splice: &mut Splice, bytes: u32, times: i8) {
        (0..times).for_each(|_| splice.received(bytes));
    }

    #[test]
    fn without_an_option_it_takes_bulk_and_a_busy_shard() {
        let mut direction = splice(Splicing::Adaptive);
        read(&mut direction, BULK_READ, ADAPTIVE_RUN - 1);
        assert!(!direction.wants_pipe(1_000));
        read(&mut direction, BULK_READ, 1);
        assert!(direction.wants_pipe(BUSY + 1));
        assert!(!direction.wants_pipe(BUSY), "not busy enough");
        read(&mut direction, BULK_READ - 1, 1);
        assert!(!direction.wants_pipe(1_000), "in a row");
    }

    #[test]
    fn it_goes_back_after_small_reads_a_rest_or_on_an_idle_shard() {
        let mut direction = splice(Splicing::Adaptive);
        direction.switch(Engine::Spliced);
        assert!(!direction.wants_copy(IDLE, 0));
        assert!(direction.wants_copy(IDLE - 1, 0));
        assert!(!direction.wants_copy(BUSY, REST_MS - 1));
        assert!(direction.wants_copy(BUSY, REST_MS));
        read(&mut direction, 100, SMALL_RUN - 1);
        assert!(!direction.wants_copy(BUSY, 0));
        read(&mut direction, BULK_READ, 1);
        read(&mut direction, 100, SMALL_RUN - 1);
        assert!(!direction.wants_copy(BUSY, 0), "in a row");
        read(&mut direction, 100, 1);
        assert!(direction.wants_copy(BUSY, 0));
    }

    #[test]
    fn large_messages_in_turn_are_spliced_on_any_shard() {
        let mut direction = splice(Splicing::Adaptive);
        let message = |direction: &mut Splice, bytes: u32| {
            direction.received(bytes / 2);
            direction.received(bytes - bytes / 2);
            direction.answered();
            direction.answered();
        };
        for _ in 1..MESSAGES_RUN {
            message(&mut direction, MESSAGE_MIN);
        }
        assert!(!direction.wants_pipe(0));
        message(&mut direction, MESSAGE_MIN / 2);
        for _ in 0..MESSAGES_RUN {
            assert!(!direction.wants_pipe(0), "in a row");
            message(&mut direction, MESSAGE_MAX);
        }
        assert!(direction.wants_pipe(0));
        direction.switch(Engine::Spliced);
        assert!(!direction.wants_copy(0, 0));
        // A stream begins.
        direction.received(MESSAGE_MAX);
        direction.received(BULK_READ);
        assert!(direction.wants_copy(0, 0) && !direction.wants_copy(IDLE, 0));
        direction.answered();
        direction.switch(Engine::Copy);
        assert!(!direction.wants_pipe(0));
    }

    #[test]
    fn options_ask_for_less() {
        let mut auto = splice(Splicing::Auto);
        read(&mut auto, BULK_READ, AUTO_RUN - 1);
        assert!(!auto.wants_pipe(0));
        read(&mut auto, BULK_READ, 1);
        assert!(auto.wants_pipe(0), "on any shard");
        auto.switch(Engine::Spliced);
        assert!(!auto.wants_pipe(0) && !auto.wants_copy(0, 0));
        read(&mut auto, 1, SMALL_RUN);
        assert!(auto.wants_copy(1_000, 0));
        let mut always = splice(Splicing::Always);
        assert!(always.wants_pipe(0));
        read(&mut always, 1, i8::MAX);
        read(&mut always, 1, i8::MAX);
        assert!(!always.wants_copy(0, REST_MS));
        let mut never = splice(Splicing::Never);
        read(&mut never, BULK_READ, i8::MAX);
        read(&mut never, BULK_READ, i8::MAX);
        assert!(!never.wants_pipe(1_000) && never.wants_copy(1_000, 0));
    }

    #[test]
    fn reads_in_vain_bar_a_direction_for_good() {
        let mut direction = splice(Splicing::Always);
        for _ in 0..3 {
            (1..VAIN_MAX).for_each(|_| direction.found_nothing());
            assert!(!direction.wants_copy(0, 0));
            direction.received(1);
        }
        (0..VAIN_MAX).for_each(|_| direction.found_nothing());
        assert!(direction.wants_copy(0, 0));
        direction.switch(Engine::Copy);
        assert!(!direction.wants_pipe(1_000));
    }

    #[test]
    fn load_is_an_average_that_a_long_window_replaces() {
        let mut load = Load::new(0, 0);
        assert!(!load.window_is_over(WINDOW_NS - 1) && load.window_is_over(WINDOW_NS));
        let (mut now, mut worked) = (0, 0);
        let mut windows = 0;
        while load.permille() <= BUSY {
            (now, worked, windows) = (now + WINDOW_NS, worked + WINDOW_NS, windows + 1);
            load.end_window(now, worked);
            assert!(windows < 20, "{load:?}");
        }
        assert!(windows > 3, "one busy window is no busy shard");
        for _ in 0..20 {
            (now, worked) = (now + WINDOW_NS, worked + WINDOW_NS);
            load.end_window(now, worked);
        }
        assert_eq!(load.permille(), 1_000);
        (now, worked) = (now + WINDOW_NS, worked + WINDOW_NS / 2);
        load.end_window(now, worked);
        assert!((800..1_000).contains(&load.permille()));
        now += LONG * WINDOW_NS;
        load.end_window(now, worked);
        assert_eq!(load.permille(), 0);
        // Clocks that disagree a little do no harm.
        load.end_window(now + 1, worked + WINDOW_NS);
        assert!(load.permille() <= 1_000);
    }
}
