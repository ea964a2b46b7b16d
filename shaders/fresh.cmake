# SPDX-License-Identifier: MIT
# Fails where the compiled shaders of a build folder are older than what they are made of:
# cmake -DFROM=FOLDER -DVARIANTS=variants.txt -P fresh.cmake
function(check source made)
    if("${source}" IS_NEWER_THAN "${made}") # also where there is none
        message(FATAL_ERROR "the compiled shaders of ${FROM} (KIM_SPIRV_FROM) are older than "
            "${source}: build that folder first")
    endif()
endfunction()

check("${VARIANTS}" "${FROM}/build.ninja")
file(READ "${FROM}/generated/kim_spirv.c" table)
file(GLOB depfiles "${FROM}/spirv/*.d") # OUTPUT: SOURCE...
foreach(depfile IN LISTS depfiles)
    get_filename_component(name "${depfile}" NAME)
    string(REGEX REPLACE "d$" "inc" name "${name}")
    string(FIND "${table}" "\"${name}\"" used)
    if(used EQUAL -1) # of a variant that is no more
        continue()
    endif()
    file(STRINGS "${depfile}" text)
    string(REGEX REPLACE "^[^:]*: " "" text "${text}")
    string(REGEX REPLACE "d$" "inc" words "${depfile}")
    separate_arguments(sources UNIX_COMMAND "${text}")
    foreach(source IN LISTS sources)
        check("${source}" "${words}")
    endforeach()
endforeach()
