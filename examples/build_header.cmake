# SPDX-License-Identifier: MIT
# Writes kim_build.h, the commit that a program was built from: cmake -DSOURCE=. -DOUT=x.h -P this
execute_process(COMMAND git -C "${SOURCE}" describe --always --dirty --abbrev=10 --exclude=*
    OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
if(failed)
    set(commit "unknown")
endif()
file(CONFIGURE OUTPUT "${OUT}" CONTENT "#define KIM_BUILD_COMMIT \"${commit}\"\n")
