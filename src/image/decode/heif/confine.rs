//! What the process that decodes may do: compute, allocate so much memory, write its answer.

use std::collections::BTreeMap;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getcpu, sched_setaffinity};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

/// Confines this process for the rest of its life. `memory` is what it may hold beside what it holds now, in bytes; `seconds` the
/// time of the processor that it may take.
pub(super) fn process(memory: u64, seconds: u64) -> Result<(), String> {
    one_processor();
    // Where the system or the container runs out of memory all the same, this process goes before the one that serves.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    let held = held().map_err(|error| format!("its memory cannot be measured: {error}"))?;
    limit(Resource::As, held.saturating_add(memory), 0)?;
    // At the first limit there is a signal that says so (SIGXCPU), at the second the end.
    limit(Resource::Cpu, seconds, 1)?;
    limit(Resource::Core, 0, 0)?;
    limit(Resource::Fsize, 0, 0)?;
    close_the_rest();
    let filter = filter(std::process::id()).map_err(|error| format!("no filter of system calls: {error}"))?;
    seccompiler::apply_filter_all_threads(&filter)
        .map_err(|error| format!("system calls cannot be filtered: {error}"))
}

/// Limits a resource to `most`, and for good to `more` than that, or to what it is limited to already.
fn limit(resource: Resource, most: u64, more: u64) -> Result<(), String> {
    let allowed = getrlimit(resource).maximum.unwrap_or(u64::MAX);
    let limits = [most, most.saturating_add(more)].map(|limit| Some(limit.min(allowed)));
    setrlimit(resource, Rlimit { current: limits[0], maximum: limits[1] })
        .map_err(|error| format!("{resource:?} cannot be limited: {error}"))
}

/// Decoders start a thread for each processor that they see, where other pictures are decoded beside this one: it stays on the
/// processor that the system has chosen for it.
fn one_processor() {
    let cpu = sched_getcpu();
    if cpu < CpuSet::MAX_CPU {
        let mut one = CpuSet::new();
        one.set(cpu);
        // It is only about speed.
        let _ = sched_setaffinity(None, &one);
    }
}

/// Closes what was open when the program was started, but for standard input, output and error: the filter leaves reading and
/// writing of it. Kernels before 5.9 cannot, and do not matter: the program opens nothing that a child would have.
fn close_the_rest() {
    // SAFETY: nothing here owns a descriptor from 3 on.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
}

/// Bytes of address space that this process has.
fn held() -> Result<u64, String> {
    let pages = std::fs::read_to_string("/proc/self/statm").map_err(|error| error.to_string())?;
    let pages = pages.split(' ').next().and_then(|pages| pages.parse::<u64>().ok());
    let pages = pages.ok_or("/proc/self/statm says nothing")?;
    Ok(pages.saturating_mul(rustix::param::page_size() as u64))
}

/// Memory, threads, reading and writing of what is open. Everything else does not exist (ENOSYS, as on a kernel without it):
/// no files, no network, no processes, no code that is loaded or made.
fn filter(process: u32) -> Result<BpfProgram, Box<dyn std::error::Error>> {
    let free = [
        libc::SYS_brk,
        libc::SYS_clock_gettime,
        libc::SYS_clock_nanosleep,
        libc::SYS_close,
        libc::SYS_exit,
        libc::SYS_exit_group,
        libc::SYS_futex,
        libc::SYS_getpid,
        libc::SYS_getrandom,
        libc::SYS_gettid,
        libc::SYS_madvise,
        libc::SYS_membarrier,
        libc::SYS_mremap,
        libc::SYS_munmap,
        libc::SYS_read,
        libc::SYS_rseq,
        libc::SYS_rt_sigaction,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigreturn,
        libc::SYS_sched_getaffinity,
        libc::SYS_sched_yield,
        libc::SYS_set_robust_list,
        libc::SYS_sigaltstack,
        libc::SYS_write,
    ];
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        free.into_iter().map(|call| (call, Vec::new())).collect();
    // Only memory that is not run, and only threads of this process.
    let masked = |argument, mask: libc::c_int, value: libc::c_int| {
        let operator = SeccompCmpOp::MaskedEq(mask as u64);
        let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value as u64)?;
        SeccompRule::new(vec![condition])
    };
    rules.insert(libc::SYS_mmap, vec![masked(2, libc::PROT_EXEC, 0)?]);
    rules.insert(libc::SYS_mprotect, vec![masked(2, libc::PROT_EXEC, 0)?]);
    rules.insert(libc::SYS_clone, vec![masked(0, libc::CLONE_THREAD, libc::CLONE_THREAD)?]);
    // Signals to itself, which is how it aborts.
    let own = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, u64::from(process))?;
    rules.insert(libc::SYS_tgkill, vec![SeccompRule::new(vec![own])?]);
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Errno(libc::ENOSYS as u32),
        SeccompAction::Allow,
        std::env::consts::ARCH.try_into()?,
    )?;
    Ok(filter.try_into()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_decodes_reaches_no_files_no_network_and_no_programs() {
        // The filter holds for the thread that asks for it.
        let confined = std::thread::spawn(|| {
            let before = std::fs::File::open("/proc/self/statm").is_ok();
            seccompiler::apply_filter(&filter(std::process::id()).unwrap()).unwrap();
            let refused = |error: std::io::Error| error.raw_os_error() == Some(libc::ENOSYS);
            let files = std::fs::File::open("/proc/self/statm").is_err_and(refused);
            let network = std::net::TcpListener::bind("127.0.0.1:0").is_err_and(refused);
            let programs = std::process::Command::new("/bin/true").status().is_err();
            let memory = vec![1_u8; 32 << 20].iter().map(|byte| usize::from(*byte)).sum::<usize>();
            let threads = std::thread::spawn(|| 1).join().is_ok_and(|one| one == 1);
            (before, files, network, programs, memory, threads)
        });
        assert_eq!(confined.join().unwrap(), (true, true, true, true, 32 << 20, true));
    }
}
