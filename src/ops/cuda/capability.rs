//! Which GPUs the kernels were compiled for.

/// Whether a GPU of compute capability `major`.`minor` runs kernels compiled for `compiled` (75 for 7.5, ascending), as
/// build.rs compiles them: machine code for each, which later GPUs of its generation run too, and PTX of the newest of each
/// generation, which the driver translates for every later GPU.
///
/// # Errors
/// Why it does not, in words for the operator.
pub(super) fn check(compiled: &[u32], (major, minor): (i32, i32)) -> Result<(), String> {
    let gpu = u32::try_from(10 * major + minor).unwrap_or(0);
    let ptx = compiled.chunk_by(|a, b| a / 10 == b / 10).filter_map(<[u32]>::last);
    let machine_code = compiled.iter().any(|&arch| arch / 10 == gpu / 10 && arch <= gpu);
    if machine_code || ptx.copied().any(|arch| arch <= gpu) {
        return Ok(());
    }
    let names: Vec<String> = compiled.iter().map(|arch| format!("{}.{}", arch / 10, arch % 10)).collect();
    Err(format!(
        "it is of compute capability {major}.{minor}, and this program has kernels for {} (SIGLIP_CUDA_ARCHS when it is built)",
        names.join(", ")
    ))
}

/// What this program was compiled for.
pub(super) fn compiled() -> Vec<u32> {
    env!("SIGLIP_CUDA_ARCHS").split(',').filter_map(|arch| arch.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_gpu_finds_machine_code_or_something_to_translate() {
        let all = [75, 80, 86, 89, 90, 100, 120];
        for gpu in
            [(7, 5), (8, 0), (8, 6), (8, 7), (8, 9), (9, 0), (10, 0), (10, 3), (11, 0), (12, 0), (12, 1)]
        {
            assert_eq!(check(&all, gpu), Ok(()), "{gpu:?}");
        }
        // Between two generations: what is translated is the older one's.
        assert_eq!(check(&[80, 120], (9, 0)), Ok(()));
        assert_eq!(check(&[86], (9, 0)), Ok(()));
    }

    #[test]
    fn a_gpu_that_is_too_old_is_told_so() {
        assert!(
            check(&[75, 90], (7, 0)).unwrap_err().contains("7.0, and this program has kernels for 7.5, 9.0")
        );
        assert!(check(&[80, 90], (7, 5)).is_err());
        assert!(check(&[86, 90], (8, 0)).is_err());
    }

    #[test]
    fn the_program_knows_what_it_was_compiled_for() {
        let compiled = compiled();
        assert!(!compiled.is_empty() && compiled.is_sorted());
        assert!(compiled.iter().all(|&arch| check(&compiled, (arch as i32 / 10, arch as i32 % 10)).is_ok()));
    }
}
