# SPDX-License-Identifier: MIT
# Compiles what variants.txt lists with glslang, optimises and validates it with SPIRV-Tools, and
# generates kim_spirv.c (the words, see host/spirv.h) and kim_variants.h (their order).
# Gives: KIM_SPIRV_SOURCE, KIM_GENERATED_DIR.

# A newer compiler that tests/setup.sh fetched goes before the system's.
set(tools "${CMAKE_CURRENT_SOURCE_DIR}/build/tools/bin")
set(KIM_GLSLANG "" CACHE FILEPATH "GLSL compiler; empty: build/tools, then the system's")
set(KIM_SPIRV_TOOLS "" CACHE PATH "folder of spirv-opt and spirv-val; empty: as KIM_GLSLANG")
set(glslang "${KIM_GLSLANG}")
if(NOT glslang)
    find_program(glslang_found NAMES glslangValidator glslang HINTS "${tools}" NO_CACHE REQUIRED)
    set(glslang "${glslang_found}")
endif()
find_program(spirv_opt spirv-opt HINTS "${KIM_SPIRV_TOOLS}" "${tools}" NO_CACHE REQUIRED)
find_program(spirv_val spirv-val HINTS "${KIM_SPIRV_TOOLS}" "${tools}" NO_CACHE REQUIRED)

# Sets `result` to whether the GLSL compiler knows an extension for a version of Vulkan.
function(kim_glsl_has result extension target)
    set(probe "${CMAKE_CURRENT_BINARY_DIR}/probe.comp")
    file(WRITE "${probe}" "#version 460\n#extension ${extension} : require\nvoid main() {}\n")
    execute_process(COMMAND "${glslang}" -V --target-env ${target} -o "${probe}.spv" "${probe}"
        RESULT_VARIABLE failed OUTPUT_QUIET ERROR_QUIET)
    if(failed)
        set(${result} OFF PARENT_SCOPE)
    else()
        set(${result} ON PARENT_SCOPE)
    endif()
endfunction()

# Words that stand after @ in variants.txt, what they need of the compiler, for which Vulkan such
# shaders are (NV's matrices are of SPIR-V 1.6), and of which memory modes: 1 is by addresses.
set(kim_feature_coopmat GL_KHR_cooperative_matrix)
set(kim_feature_coopmat2 GL_NV_cooperative_matrix2)
set(kim_feature_dot GL_EXT_integer_dot_product)
set(kim_feature_touch GL_EXT_shader_8bit_storage)
set(kim_target_ vulkan1.2)
set(kim_target_coopmat vulkan1.2)
set(kim_target_coopmat2 vulkan1.3)
set(kim_target_dot vulkan1.2)
set(kim_target_touch vulkan1.2)
set(kim_modes_touch 1)
set(features "")
foreach(feature coopmat coopmat2 dot touch)
    kim_glsl_has(kim_has_${feature} ${kim_feature_${feature}} ${kim_target_${feature}})
    string(APPEND features ", ${kim_feature_${feature}} ${kim_has_${feature}}")
endforeach()
message(STATUS "GLSL compiler: ${glslang}${features}")

# What {type}, {short} and {integer} in a name are expanded to.
set(names_type f32 f16 bf16 q4_0 q4_1 q5_0 q5_1 q8_0 q2_k q3_k q4_k q5_k q6_k iq4_nl iq4_xs)
list(SUBLIST names_type 1 -1 names_short)
list(SUBLIST names_type 3 -1 names_integer)

set(KIM_GENERATED_DIR "${CMAKE_CURRENT_BINARY_DIR}/generated")
set(KIM_SPIRV_FROM "" CACHE PATH
    "a build folder of this tree, of Ninja, whose compiled shaders are taken; those that it lacks
     are compiled")
set(spirv_dir "${CMAKE_CURRENT_BINARY_DIR}/spirv")
file(MAKE_DIRECTORY "${spirv_dir}")
set(spirv_words "")  # the .inc files
set(spirv_arrays "") # C text
set(spirv_table "")
set(spirv_enum "")
set(spirv_missing "")

# Adds the commands that turn one shader into words, once a memory mode.
function(kim_compile_shader name source macros target modes)
    set(words "")
    foreach(mode IN LISTS modes)
        set(taken "${KIM_SPIRV_FROM}/spirv/${name}.${mode}.inc")
        if(KIM_SPIRV_FROM AND EXISTS "${taken}")
            list(APPEND words "${taken}")
            continue()
        endif()
        set(output "${spirv_dir}/${name}.${mode}")
        list(APPEND words "${output}.inc")
        set(defines -DKIM_ADDRESS=${mode})
        foreach(macro IN LISTS macros)
            list(APPEND defines -D${macro})
        endforeach()
        add_custom_command(OUTPUT "${output}.spv"
            COMMAND "${glslang}" --quiet -V --target-env ${target} -I${shader_dir} ${defines}
                --depfile "${output}.d" -o "${output}.spv" "${shader_dir}/${source}"
            DEPENDS "${shader_dir}/${source}" "${glslang}"
            DEPFILE "${output}.d"
            COMMENT "GLSL ${name} ${mode}" VERBATIM)
        add_custom_command(OUTPUT "${output}.inc"
            COMMAND "${spirv_opt}" -O --strip-debug -o "${output}.opt.spv" "${output}.spv"
            COMMAND "${spirv_val}" --target-env ${target} "${output}.opt.spv"
            COMMAND "${CMAKE_COMMAND}" -DIN=${output}.opt.spv -DOUT=${output}.inc
                -P "${shader_dir}/embed.cmake"
            DEPENDS "${output}.spv" "${shader_dir}/embed.cmake"
            COMMENT "SPIR-V ${name} ${mode}" VERBATIM)
    endforeach()
    set(spirv_words ${spirv_words} ${words} PARENT_SCOPE)
endfunction()

# Adds one variant to the table, and compiles it unless its feature is missing.
function(kim_add_variant feature name source macros)
    string(TOUPPER "${name}" upper)
    string(APPEND spirv_enum "    KIM_VARIANT_${upper},\n")
    set(modes 0 1)
    if(DEFINED kim_modes_${feature})
        set(modes ${kim_modes_${feature}})
    endif()
    if(feature AND NOT kim_has_${feature})
        string(APPEND spirv_table "    {\"${name}\", {0, 0}, {0, 0}},\n")
        list(APPEND spirv_missing ${feature})
        foreach(mode 0 1) # of a newer compiler
            file(REMOVE "${spirv_dir}/${name}.${mode}.inc" "${spirv_dir}/${name}.${mode}.d")
        endforeach()
    else()
        kim_compile_shader("${name}" "${source}" "${macros}" "${kim_target_${feature}}" "${modes}")
        set(code_0 0)
        set(bytes_0 0)
        foreach(mode IN LISTS modes)
            string(APPEND spirv_arrays "static const uint32_t ${name}_${mode}[] = {\n"
                "#include \"${name}.${mode}.inc\"\n};\n")
            set(code_${mode} "${name}_${mode}")
            set(bytes_${mode} "sizeof ${name}_${mode}")
        endforeach()
        string(APPEND spirv_table "    {\"${name}\", {${code_0}, ${code_1}}, {${bytes_0}, ${bytes_1}}},\n")
    endif()
    foreach(variable spirv_words spirv_enum spirv_table spirv_arrays spirv_missing)
        set(${variable} "${${variable}}" PARENT_SCOPE)
    endforeach()
endfunction()

set(shader_dir "${CMAKE_CURRENT_SOURCE_DIR}/shaders")
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${shader_dir}/variants.txt")
file(STRINGS "${shader_dir}/variants.txt" lines REGEX "^[^#]")
foreach(line IN LISTS lines)
    separate_arguments(words UNIX_COMMAND "${line}")
    set(feature "")
    list(GET words 0 first)
    if(first MATCHES "^@(.*)")
        set(feature "${CMAKE_MATCH_1}")
        if(NOT DEFINED kim_has_${feature})
            message(FATAL_ERROR "variants.txt: unknown feature ${first} in: ${line}")
        endif()
        list(POP_FRONT words)
    endif()
    list(LENGTH words length)
    if(length LESS 2)
        message(FATAL_ERROR "variants.txt: expected [@feature] name source MACRO=VALUE..., found: ${line}")
    endif()
    list(POP_FRONT words name source)
    if(name MATCHES "{(type|short|integer)}")
        set(names "names_${CMAKE_MATCH_1}")
        set(place "${CMAKE_MATCH_0}")
        foreach(type IN LISTS ${names})
            string(TOUPPER "WEIGHT_${type}" weight)
            string(REPLACE "${place}" "${type}" typed_name "${name}")
            string(REPLACE "{TYPE}" "${weight}" typed_macros "${words}")
            kim_add_variant("${feature}" "${typed_name}" "${source}" "${typed_macros}")
        endforeach()
    else()
        kim_add_variant("${feature}" "${name}" "${source}" "${words}")
    endif()
endforeach()

# What the library waits for: nothing, or a look at the shaders of the other folder.
add_custom_target(kim_spirv)
if(KIM_SPIRV_FROM)
    add_custom_command(TARGET kim_spirv POST_BUILD COMMAND "${CMAKE_COMMAND}" "-DFROM=${KIM_SPIRV_FROM}"
        "-DVARIANTS=${shader_dir}/variants.txt" -P "${shader_dir}/fresh.cmake" VERBATIM)
endif()

set(missing_text "")
list(REMOVE_DUPLICATES spirv_missing)
foreach(feature IN LISTS spirv_missing)
    list(APPEND missing_names ${kim_feature_${feature}})
endforeach()
if(spirv_missing)
    list(JOIN missing_names ", " missing_names)
    set(missing_text "built without the shaders that need ${missing_names}: the GLSL compiler was too old")
    message(NOTICE "### SHADERS LEFT OUT: ${missing_text} (${glslang}); tests/setup.sh fetches one "
        "for all but GL_NV_cooperative_matrix2, which needs glslang 15")
endif()

file(CONFIGURE OUTPUT "${KIM_GENERATED_DIR}/kim_variants.h" @ONLY CONTENT
"// Generated from shaders/variants.txt.
#ifndef KIM_VARIANTS_H
#define KIM_VARIANTS_H
enum kim_variant {
@spirv_enum@    KIM_VARIANT_COUNT
};
#endif
")
set(KIM_SPIRV_SOURCE "${KIM_GENERATED_DIR}/kim_spirv.c")
file(CONFIGURE OUTPUT "${KIM_SPIRV_SOURCE}" @ONLY CONTENT
"// Generated from shaders/variants.txt.
#include \"host/spirv.h\"

@spirv_arrays@
const kim_spirv kim_spirv_table[] = {
@spirv_table@};
const uint32_t kim_spirv_count = sizeof kim_spirv_table / sizeof *kim_spirv_table;
const char kim_build_missing_text[] = \"@missing_text@\";
")
set_source_files_properties("${KIM_SPIRV_SOURCE}" PROPERTIES
    OBJECT_DEPENDS "${spirv_words}"
    INCLUDE_DIRECTORIES "$<$<BOOL:${KIM_SPIRV_FROM}>:${KIM_SPIRV_FROM}/spirv>;${spirv_dir}")
