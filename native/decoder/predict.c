/* Address-bearing fields of each architecture, as tables: how one is recognised, what it points at, and what
 * it reads when it sits elsewhere and points elsewhere. */
#include "core.h"

#ifdef SD_MCU /* nobody reads them there */
#define N(name)
#else
#define N(name) name,
#endif
#define GET(name) static int name(const sd_view *v, sd_wide w, sd_wide *t)
#define PUT(name) static sd_wide name(sd_wide w, sd_wide pc, sd_wide t)
static sd_gap sx(sd_wide v, int bits) { return (sd_gap)(v << (SD_WIDTH - bits)) >> (SD_WIDTH - bits); }

sd_wide sd_word(const u8 *p, u32 len)
{
    sd_wide w = 0;
    while (len--)
        w = w << 8 | p[len];
    return w;
}

/* --- absolute words, and words relative to themselves (switch tables, exception tables) --------------- */
GET(abs32_get) { (void)v; *t = w; return w > 255; }
PUT(abs32_put) { (void)w; (void)pc; return (u32)t; }
GET(abs64_get) { (void)v; *t = w; return w > 4095; }
PUT(abs64_put) { (void)w; (void)pc; return t; }
GET(self32_get) { sd_gap d = sx(w, 32); *t = v->pc + (sd_wide)d; return d > 256 || d < -256; }
PUT(self32_put) { (void)w; return (u32)(t - pc); }
GET(self32_get4) { sd_gap d = sx(w, 32); *t = (u32)(v->pc + (sd_wide)d); return d > 64 || d < -64; }

/* --- Thumb-2 (words are h1 | h2 << 16) ---------------------------------------------------------------- */
static sd_wide thumb25(sd_wide w, sd_wide t_pc4, sd_wide keep)
{
    u32 d = (u32)t_pc4, s = d >> 24 & 1, i1 = d >> 23 & 1, i2 = d >> 22 & 1;
    u32 a = 0xF000 | s << 10 | (d >> 12 & 0x3FF);
    u32 b = (u32)(w >> 16 & keep) | (i1 ^ 1 ^ s) << 13 | (i2 ^ 1 ^ s) << 11 | (d >> 1 & 0x7FF);
    return a | (sd_wide)b << 16;
}
static sd_gap thumb25_offset(sd_wide w)
{
    u32 a = (u32)w & 0xFFFF, b = (u32)(w >> 16), s = a >> 10 & 1;
    u32 i1 = 1 ^ (b >> 13 & 1) ^ s, i2 = 1 ^ (b >> 11 & 1) ^ s;
    return sx(s << 24 | i1 << 23 | i2 << 22 | (a & 0x3FF) << 12 | (b & 0x7FF) << 1, 25);
}
GET(bl_get) { *t = (u32)(v->pc + 4 + (sd_wide)thumb25_offset(w)); return 1; }
PUT(bl_put) { return thumb25(w, t - (pc + 4), 0xD000); }
GET(blx_get) { *t = (u32)(v->pc + 4 + (sd_wide)thumb25_offset(w)) & ~3u; return 1; }
PUT(blx_put) { return thumb25(w, t - ((pc + 4) & ~(sd_wide)3), 0xD000) & ~(sd_wide)0x10000; }
GET(bcc_get)
{
    u32 a = (u32)w & 0xFFFF, b = (u32)(w >> 16);
    if ((a >> 6 & 0xE) == 0xE)
        return 0;
    *t = (u32)(v->pc + 4 + (sd_wide)sx((a >> 10 & 1) << 20 | (b >> 11 & 1) << 19 | (b >> 13 & 1) << 18 |
                                   (a & 0x3F) << 12 | (b & 0x7FF) << 1, 21));
    return 1;
}
PUT(bcc_put)
{
    u32 d = (u32)(t - (pc + 4)), a = ((u32)w & 0xFBC0) | (d >> 20 & 1) << 10 | (d >> 12 & 0x3F);
    u32 b = ((u32)(w >> 16) & 0xD000) | (d >> 18 & 1) << 13 | (d >> 19 & 1) << 11 | (d >> 1 & 0x7FF);
    return a | (sd_wide)b << 16;
}
GET(ldrw_get)
{
    sd_gap d = (sd_gap)(w >> 16 & 0xFFF);
    *t = (u32)(((v->pc + 4) & ~(sd_wide)3) + (sd_wide)(w & 0x80 ? d : -d));
    return 1;
}
PUT(ldrw_put)
{
    sd_wide from = (pc + 4) & ~(sd_wide)3, far = t >= from ? t - from : from - t;
    sd_wide a = (w & 0xFF7F) | (t >= from ? 0x80 : 0);
    return a | ((w >> 16 & 0xF000) | (far & 0xFFF)) << 16;
}
GET(ldr_get) { *t = (u32)(((v->pc + 4) & ~(sd_wide)3) + (w & 0xFF) * 4); return 1; }
PUT(ldr_put) { return (w & 0xFF00) | ((t - ((pc + 4) & ~(sd_wide)3)) >> 2 & 0xFF); }
GET(b11_get) { *t = (u32)(v->pc + 4 + (sd_wide)(sx(w, 11) * 2)); return 1; }
PUT(b11_put) { return (w & 0xF800) | ((t - (pc + 4)) >> 1 & 0x7FF); }
GET(b8_get)
{
    if ((w >> 8 & 0xE) == 0xE)
        return 0;
    *t = (u32)(v->pc + 4 + (sd_wide)(sx(w, 8) * 2));
    return 1;
}
PUT(b8_put) { return (w & 0xFF00) | ((t - (pc + 4)) >> 1 & 0xFF); }
GET(cbz_get) { *t = (u32)(v->pc + 4 + ((w >> 9 & 1) << 6 | (w >> 3 & 31) << 1)); return 1; }
PUT(cbz_put) { sd_wide d = t - (pc + 4); return (w & 0xFD07) | (d >> 6 & 1) << 9 | (d >> 1 & 31) << 3; }
/* MOVW/MOVT pairs, either the same register a few halfwords away */
static u32 movt_imm(sd_wide w)
{
    u32 a = (u32)w & 0xFFFF, b = (u32)(w >> 16);
    return (a & 15) << 12 | (a >> 10 & 1) << 11 | (b >> 12 & 7) << 8 | (b & 255);
}
static sd_wide movt_put(sd_wide w, u32 x)
{
    sd_wide a = (w & 0xFBF0) | (x >> 12 & 15) | (x >> 11 & 1) << 10, b = (w >> 16 & 0x8F00) | (x >> 8 & 7) << 12 | (x & 255);
    return a | b << 16;
}
GET(tmovw_get)
{
    for (u32 k = 4; k <= 20 && k + 4 <= v->fwd; k += 2) {
        sd_wide x = sd_l32(v->p + k);
        if ((x & 0x8000FBF0u) == 0xF2C0 && (x >> 24 & 15) == (w >> 24 & 15)) {
            *t = (sd_wide)movt_imm(x) << 16 | movt_imm(w);
            return 1;
        }
    }
    return 0;
}
GET(tmovt_get)
{
    for (u32 k = 4; k <= 20 && k <= v->back; k += 2) {
        sd_wide x = sd_l32(v->p - k);
        if ((x & 0x8000FBF0u) == 0xF240 && (x >> 24 & 15) == (w >> 24 & 15)) {
            *t = (sd_wide)movt_imm(w) << 16 | movt_imm(x);
            return 1;
        }
    }
    return 0;
}
PUT(tmovw_put) { (void)pc; return movt_put(w, (u32)t & 0xFFFF); }
PUT(tmovt_put) { (void)pc; return movt_put(w, (u32)(t >> 16) & 0xFFFF); }

static const sd_form thumb[] = {
    {N("bl") 4, 2, SD_ANYWHERE, 0xD000F800, 0xD000F000, 0x2FFF07FF, bl_get, bl_put},
    {N("b.w") 4, 2, SD_ANYWHERE, 0xD000F800, 0x9000F000, 0x2FFF07FF, bl_get, bl_put},
    {N("blx") 4, 2, SD_ANYWHERE, 0xD001F800, 0xC000F000, 0x2FFE07FF, blx_get, blx_put},
    {N("b<c>.w") 4, 2, 0, 0xD000F800, 0x8000F000, 0x2FFF043F, bcc_get, bcc_put},
    {N("ldr.w") 4, 2, 0, 0xFF7F, 0xF85F, 0x0FFF0080, ldrw_get, ldrw_put},
    {N("movw") 4, 2, 0, 0x8000FBF0, 0xF240, 0x70FF040F, tmovw_get, tmovw_put},
    {N("movt") 4, 2, 0, 0x8000FBF0, 0xF2C0, 0x70FF040F, tmovt_get, tmovt_put},
    {N("word") 4, 4, 0, 0, 0, 0xFFFFFFFF, abs32_get, abs32_put},
    {N("ldr") 2, 2, 0, 0xF800, 0x4800, 0x00FF, ldr_get, ldr_put},
    {N("b") 2, 2, 0, 0xF800, 0xE000, 0x07FF, b11_get, b11_put},
    {N("b<c>") 2, 2, 0, 0xF000, 0xD000, 0x00FF, b8_get, b8_put},
    {N("cbz") 2, 2, 0, 0xF500, 0xB100, 0x02F8, cbz_get, cbz_put},
};

/* --- ARM ----------------------------------------------------------------------------------------------- */
GET(arm_b_get) { *t = (u32)(v->pc + 8 + (sd_wide)(sx(w, 24) * 4)); return w >> 28 != 15; }
PUT(arm_b_put) { return (w & 0xFF000000) | ((t - (pc + 8)) >> 2 & 0xFFFFFF); }
GET(arm_ldr_get)
{
    sd_gap d = (sd_gap)(w & 0xFFF);
    *t = (u32)(v->pc + 8 + (sd_wide)(w >> 23 & 1 ? d : -d));
    return 1;
}
PUT(arm_ldr_put)
{
    sd_gap d = (sd_gap)(t - (pc + 8));
    return (w & ~(sd_wide)0x800FFF) | (d >= 0 ? 1u << 23 : 0) | (sd_wide)((d < 0 ? -d : d) & 0xFFF);
}
static u32 arm_imm(sd_wide w) { return (u32)((w >> 4 & 0xF000) | (w & 0xFFF)); }
GET(arm_movw_get)
{
    for (u32 k = 4; k <= 24 && k + 4 <= v->fwd; k += 4) {
        sd_wide x = sd_l32(v->p + k);
        if ((x & 0x0FF00000) == 0x03400000 && (x >> 12 & 15) == (w >> 12 & 15)) {
            *t = (sd_wide)arm_imm(x) << 16 | arm_imm(w);
            return 1;
        }
    }
    return 0;
}
GET(arm_movt_get)
{
    for (u32 k = 4; k <= 24 && k <= v->back; k += 4) {
        sd_wide x = sd_l32(v->p - k);
        if ((x & 0x0FF00000) == 0x03000000 && (x >> 12 & 15) == (w >> 12 & 15)) {
            *t = (sd_wide)arm_imm(w) << 16 | arm_imm(x);
            return 1;
        }
    }
    return 0;
}
PUT(arm_movw_put) { (void)pc; return (w & ~(sd_wide)0xF0FFF) | (t & 0xF000) << 4 | (t & 0xFFF); }
PUT(arm_movt_put) { return arm_movw_put(w, pc, t >> 16); }
/* the older Thumb's BL: two halves of 11 bits, the upper two of Thumb-2's bits fixed */
static sd_gap t1_offset(sd_wide w) { return sx((w & 0x7FF) << 12 | (w >> 16 & 0x7FF) << 1, 23); }
GET(t1_bl_get) { *t = (u32)(v->pc + 4 + (sd_wide)t1_offset(w)); return 1; }
GET(t1_blx_get) { *t = (u32)(v->pc + 4 + (sd_wide)t1_offset(w)) & ~3u; return 1; }
PUT(t1_bl_put) { sd_wide d = t - (pc + 4); return (w & 0xF800F800) | (d >> 12 & 0x7FF) | (d >> 1 & 0x7FF) << 16; }
PUT(t1_blx_put) { return t1_bl_put(w, pc & ~(sd_wide)3, t) & ~(sd_wide)0x10000; }

static const sd_form arm[] = {
    {N("bl") 4, 4, SD_ANYWHERE, 0x0F000000, 0x0B000000, 0xFFFFFF, arm_b_get, arm_b_put},
    {N("b") 4, 4, SD_ANYWHERE, 0x0F000000, 0x0A000000, 0xFFFFFF, arm_b_get, arm_b_put},
    {N("ldr") 4, 4, 0, 0x0F7F0000, 0x051F0000, 0x800FFF, arm_ldr_get, arm_ldr_put},
    {N("movw") 4, 4, 0, 0x0FF00000, 0x03000000, 0xF0FFF, arm_movw_get, arm_movw_put},
    {N("movt") 4, 4, 0, 0x0FF00000, 0x03400000, 0xF0FFF, arm_movt_get, arm_movt_put},
    {N("word") 4, 4, 0, 0, 0, 0xFFFFFFFF, abs32_get, abs32_put},
    {N("self") 4, 4, 0, 0, 0, 0xFFFFFFFF, self32_get, self32_put},
};

/* Both in one image (ARMv4T to v6): of ARM only what no Thumb code looks like */
static const sd_form mixed[] = {
    {N("bl") 4, 4, SD_ANYWHERE, 0xFF000000, 0xEB000000, 0xFFFFFF, arm_b_get, arm_b_put},
    {N("b") 4, 4, SD_ANYWHERE, 0xFF000000, 0xEA000000, 0xFFFFFF, arm_b_get, arm_b_put},
    {N("ldr") 4, 4, 0, 0xFF7F0000, 0xE51F0000, 0x800FFF, arm_ldr_get, arm_ldr_put},
    {N("t.bl") 4, 2, SD_ANYWHERE, 0xF800F800, 0xF800F000, 0x07FF07FF, t1_bl_get, t1_bl_put},
    {N("t.blx") 4, 2, SD_ANYWHERE, 0xF801F800, 0xE800F000, 0x07FE07FF, t1_blx_get, t1_blx_put},
    {N("word") 4, 4, 0, 0, 0, 0xFFFFFFFF, abs32_get, abs32_put},
    {N("t.ldr") 2, 2, 0, 0xF800, 0x4800, 0x00FF, ldr_get, ldr_put},
    {N("t.b") 2, 2, 0, 0xF800, 0xE000, 0x07FF, b11_get, b11_put},
    {N("t.b<c>") 2, 2, 0, 0xF000, 0xD000, 0x00FF, b8_get, b8_put},
};

/* --- AArch64 --------------------------------------------------------------------------------------------- */
static sd_wide adrp_page(sd_wide w, sd_wide pc)
{
    return (pc & ~(sd_wide)4095) + (sd_wide)(sx((w >> 5 & 0x7FFFF) << 2 | (w >> 29 & 3), 21) * 4096);
}
/* the low 12 bits an instruction adds to register rg, scaled; -1 when it does not */
static sd_gap lo12(sd_wide x, sd_wide rg)
{
    if ((x >> 5 & 31) != rg)
        return -1;
    if ((x & 0xFFC00000) == 0x91000000)
        return (sd_gap)(x >> 10 & 0xFFF);
    if ((x & 0x3B000000) == 0x39000000) {
        u32 sc = (x & 0x04800000) == 0x04800000 ? 4 : (u32)(x >> 30);
        sd_gap lo = (sd_gap)(x >> 10 & 0xFFF) << sc;
        return lo < 4096 ? lo : -1; /* an offset into something, not the low half of its address */
    }
    return -1;
}
GET(a_b_get) { *t = v->pc + (sd_wide)(sx(w, 26) * 4); return 1; }
PUT(a_b_put) { return (w & 0xFC000000) | ((t - pc) >> 2 & 0x3FFFFFF); }
GET(a_adrp_get)
{
    sd_wide page = *t = adrp_page(w, v->pc);
    for (u32 k = 4; k <= 24 && k + 4 <= v->fwd; k += 4) {
        sd_gap lo = lo12(sd_l32(v->p + k), w & 31);
        if (lo >= 0) {
            *t = page + (sd_wide)lo;
            break;
        }
    }
    return 1;
}
PUT(a_adrp_put)
{
    sd_wide d = ((t & ~(sd_wide)4095) - (pc & ~(sd_wide)4095)) >> 12;
    return (w & 0x9F00001F) | (d & 3) << 29 | (d >> 2 & 0x7FFFF) << 5;
}
GET(a_lo_get)
{
    sd_wide rn = w >> 5 & 31;
    for (u32 k = 4; k <= 32 && k <= v->back; k += 4) {
        sd_wide x = sd_l32(v->p - k);
        if ((x & 0x9F000000) == 0x90000000 && (x & 31) == rn) {
            sd_gap lo = lo12(w, rn);
            *t = adrp_page(x, v->pc - k) + (sd_wide)lo;
            return lo >= 0;
        }
    }
    return 0;
}
PUT(a_add_put) { (void)pc; return (w & ~((sd_wide)0xFFF << 10)) | (t & 0xFFF) << 10; }
PUT(a_ldst_put)
{
    u32 sc = (w & 0x04800000) == 0x04800000 ? 4 : (u32)(w >> 30 & 3);
    (void)pc;
    return (w & ~((sd_wide)0xFFF << 10)) | ((t & 0xFFF) >> sc & 0xFFF) << 10;
}
GET(a_19_get) { *t = v->pc + (sd_wide)(sx(w >> 5, 19) * 4); return 1; }
PUT(a_19_put) { return (w & ~((sd_wide)0x7FFFF << 5)) | ((t - pc) >> 2 & 0x7FFFF) << 5; }
GET(a_14_get) { *t = v->pc + (sd_wide)(sx(w >> 5, 14) * 4); return 1; }
PUT(a_14_put) { return (w & ~((sd_wide)0x3FFF << 5)) | ((t - pc) >> 2 & 0x3FFF) << 5; }
static const sd_form a64[] = {
    {N("bl") 4, 4, SD_ANYWHERE, 0xFC000000, 0x94000000, 0x3FFFFFF, a_b_get, a_b_put},
    {N("b") 4, 4, SD_ANYWHERE, 0xFC000000, 0x14000000, 0x3FFFFFF, a_b_get, a_b_put},
    {N("adrp") 4, 4, SD_HIGH, 0x9F000000, 0x90000000, 0x60FFFFE0, a_adrp_get, a_adrp_put},
    {N("add") 4, 4, 0, 0xFFC00000, 0x91000000, 0x3FFC00, a_lo_get, a_add_put},
    {N("ldst") 4, 4, 0, 0x3B000000, 0x39000000, 0x3FFC00, a_lo_get, a_ldst_put},
    {N("b.c") 4, 4, 0, 0xFF000010, 0x54000000, 0xFFFFE0, a_19_get, a_19_put},
    {N("cbz") 4, 4, 0, 0x7E000000, 0x34000000, 0xFFFFE0, a_19_get, a_19_put},
    {N("ldr") 4, 4, 0, 0xBF000000, 0x18000000, 0xFFFFE0, a_19_get, a_19_put},
    {N("tbz") 4, 4, 0, 0x7E000000, 0x36000000, 0x7FFE0, a_14_get, a_14_put},
    {N("quad") 8, 8, 0, 0, 0, ~(sd_wide)0, abs64_get, abs64_put},
    {N("self") 4, 4, 0, 0, 0, 0xFFFFFFFF, self32_get, self32_put},
};

/* --- x86-64: the four bytes of the displacement; the opcode stands before -------------------------------- */
GET(x_call_get)
{
    *t = v->pc + 4 + (sd_wide)sx(w, 32);
    return v->back >= 1 && (v->p[-1] & 0xFE) == 0xE8;
}
GET(x_jcc_get)
{
    *t = v->pc + 4 + (sd_wide)sx(w, 32);
    return v->back >= 2 && v->p[-2] == 0x0F && (v->p[-1] & 0xF0) == 0x80;
}
GET(x_rip_get)
{
    *t = v->pc + 4 + (sd_wide)sx(w, 32);
    return v->back >= 2 && (v->p[-1] & 0xC7) == 0x05;
}
PUT(x_rel_put) { (void)w; return (u32)(t - (pc + 4)); }
GET(x_abs_get)
{
    (void)v;
    *t = (sd_wide)sx(w, 32);
    return w >> 24 >= 0x81 && w >> 24 < 0x90;
}
static const sd_form x86[] = {
    {N("call") 4, 1, 0, 0, 0, 0xFFFFFFFF, x_call_get, x_rel_put},
    {N("jcc") 4, 1, 0, 0, 0, 0xFFFFFFFF, x_jcc_get, x_rel_put},
    {N("rip") 4, 1, 0, 0, 0, 0xFFFFFFFF, x_rip_get, x_rel_put},
    {N("abs") 4, 1, 0, 0, 0, 0xFFFFFFFF, x_abs_get, abs32_put},
    {N("self") 4, 4, 0, 0, 0, 0xFFFFFFFF, self32_get, self32_put},
};

/* --- Xtensa ------------------------------------------------------------------------------------------------ */
GET(xt_call_get) { *t = (u32)((v->pc & ~(sd_wide)3) + 4 + (sd_wide)(sx(w >> 6, 18) * 4)); return 1; }
PUT(xt_call_put) { return (w & 0x3F) | ((t - ((pc & ~(sd_wide)3) + 4)) >> 2 & 0x3FFFF) << 6; }
GET(xt_l32r_get) { *t = (u32)(((v->pc + 3) & ~(sd_wide)3) + (0xFFFC0000u | (w >> 8 & 0xFFFF) << 2)); return 1; }
PUT(xt_l32r_put) { return (w & 0xFF) | ((t - ((pc + 3) & ~(sd_wide)3)) >> 2 & 0xFFFF) << 8; }
GET(xt_j_get) { *t = (u32)(v->pc + 4 + (sd_wide)sx(w >> 6, 18)); return 1; }
PUT(xt_j_put) { return (w & 0x3F) | ((t - (pc + 4)) & 0x3FFFF) << 6; }
GET(xt_b8_get)
{
    *t = (u32)(v->pc + 4 + (sd_wide)sx(w >> 16, 8));
    return (w & 15) == 7 || (w & 0x3F) == 0x26 || (w & 0xFF) != 0x36;
}
PUT(xt_b8_put) { return (w & 0xFFFF) | ((t - (pc + 4)) & 0xFF) << 16; }
GET(xt_bz_get) { *t = (u32)(v->pc + 4 + (sd_wide)sx(w >> 12, 12)); return 1; }
PUT(xt_bz_put) { return (w & 0xFFF) | ((t - (pc + 4)) & 0xFFF) << 12; }
GET(xt_bn_get) { *t = (u32)(v->pc + 4 + ((w >> 12 & 15) | (w >> 4 & 3) << 4)); return 1; }
PUT(xt_bn_put) { sd_wide d = t - (pc + 4); return (w & 0x0FCF) | (d & 15) << 12 | (d >> 4 & 3) << 4; }
static const sd_form xtensa[] = {
    {N("call") 3, 1, SD_UNIT | SD_ANYWHERE, 0x0F, 0x05, 0xFFFFC0, xt_call_get, xt_call_put},
    {N("l32r") 3, 1, SD_UNIT, 0x0F, 0x01, 0xFFFF00, xt_l32r_get, xt_l32r_put},
    {N("j") 3, 1, SD_UNIT, 0x3F, 0x06, 0xFFFFC0, xt_j_get, xt_j_put},
    {N("b<c>") 3, 1, SD_UNIT, 0x0F, 0x07, 0xFF0000, xt_b8_get, xt_b8_put},
    {N("b<c>z") 3, 1, SD_UNIT, 0x3F, 0x16, 0xFFF000, xt_bz_get, xt_bz_put},
    {N("b<c>i") 3, 1, SD_UNIT, 0x3F, 0x26, 0xFF0000, xt_b8_get, xt_b8_put},
    {N("b<c>ui") 3, 1, SD_UNIT, 0x3F, 0x36, 0xFF0000, xt_b8_get, xt_b8_put},
    {N("b<c>z.n") 2, 1, SD_UNIT, 0x8F, 0x8C, 0xF030, xt_bn_get, xt_bn_put},
    {N("word") 4, 4, 0, 0, 0, 0xFFFFFFFF, abs32_get, abs32_put},
    {N("self") 4, 4, SD_DATA, 0, 0, 0xFFFFFFFF, self32_get4, self32_put},
};

/* --- RISC-V ------------------------------------------------------------------------------------------------ */
GET(rv_jal_get)
{
    *t = (u32)(v->pc + (sd_wide)sx((w >> 31 & 1) << 20 | (w & 0xFF000) | (w >> 9 & 0x800) | (w >> 20 & 0x7FE), 21));
    return 1;
}
PUT(rv_jal_put)
{
    sd_wide d = t - pc;
    return (w & 0xFFF) | (d >> 20 & 1) << 31 | (d & 0x7FE) << 20 | (d & 0x800) << 9 | (d & 0xFF000);
}
/* the immediate of an instruction that uses register rg as a base: jalr, addi, load, store */
static int rv_lo(sd_wide x, sd_wide rg, sd_gap *imm)
{
    sd_wide op = x & 0x7F;
    if ((x & 3) != 3 || (x >> 15 & 31) != rg || (op != 0x67 && op != 0x13 && op != 3 && op != 0x23))
        return 0;
    *imm = op == 0x23 ? sx((x >> 25 & 0x7F) << 5 | (x >> 7 & 31), 12) : sx(x >> 20, 12);
    return 1;
}
GET(rv_hi_get)
{
    sd_gap imm;
    for (u32 k = 4; k <= 16 && k + 4 <= v->fwd; k += (v->p[k] & 3) == 3 ? 4 : 2)
        if (rv_lo(sd_l32(v->p + k), w >> 7 & 31, &imm)) {
            *t = (u32)(((w & 0x20) ? 0 : v->pc) + (w & 0xFFFFF000) + (sd_wide)imm);
            return 1;
        }
    return 0;
}
PUT(rv_hi_put) { sd_wide d = t - ((w & 0x20) ? 0 : pc); return (w & 0xFFF) | ((d + 0x800) & 0xFFFFF000); }
GET(rv_lo_get)
{
    sd_gap imm;
    sd_wide rs = w >> 15 & 31;
    if (!rs || !rv_lo(w, rs, &imm) || ((w & 0x7F) == 0x13 && (w >> 12 & 7)))
        return 0;
    for (u32 k = 4; k <= 16 && k <= v->back; k += 2) {
        sd_wide x = sd_l32(v->p - k);
        if (((x & 0x7F) == 0x17 || (x & 0x7F) == 0x37) && (x >> 7 & 31) == rs) {
            *t = (u32)(((x & 0x20) ? 0 : v->pc - k) + (x & 0xFFFFF000) + (sd_wide)imm);
            return (int)(k << 1 | ((x & 0x20) ? 1 : 0));
        }
    }
    return 0;
}
/* pc here is what the high half started from: its own address for auipc, 0 for lui */
PUT(rv_lo_put)
{
    sd_wide d = t - pc;
    if ((w & 0x7F) == 0x23)
        return (w & 0x01FFF07F) | (d >> 5 & 0x7F) << 25 | (d & 31) << 7;
    return (w & 0xFFFFF) | (d & 0xFFF) << 20;
}
GET(rv_b_get)
{
    *t = (u32)(v->pc + (sd_wide)sx((w >> 31 & 1) << 12 | (w << 4 & 0x800) | (w >> 20 & 0x7E0) | (w >> 7 & 0x1E), 13));
    return 1;
}
PUT(rv_b_put)
{
    sd_wide d = t - pc;
    return (w & 0x01FFF07F) | (d >> 12 & 1) << 31 | (d & 0x7E0) << 20 | (d & 0x1E) << 7 | (d & 0x800) >> 4;
}
GET(rv_cj_get)
{
    sd_wide d = (w >> 12 & 1) << 11 | (w >> 11 & 1) << 4 | (w >> 9 & 3) << 8 | (w >> 8 & 1) << 10 | (w >> 7 & 1) << 6 |
            (w >> 6 & 1) << 7 | (w >> 3 & 7) << 1 | (w >> 2 & 1) << 5;
    *t = (u32)(v->pc + (sd_wide)sx(d, 12));
    return 1;
}
PUT(rv_cj_put)
{
    sd_wide d = t - pc;
    return (w & 0xE003) | (d >> 11 & 1) << 12 | (d >> 4 & 1) << 11 | (d >> 8 & 3) << 9 | (d >> 10 & 1) << 8 |
           (d >> 6 & 1) << 7 | (d >> 7 & 1) << 6 | (d >> 1 & 7) << 3 | (d >> 5 & 1) << 2;
}
GET(rv_cb_get)
{
    sd_wide d = (w >> 12 & 1) << 8 | (w >> 10 & 3) << 3 | (w >> 5 & 3) << 6 | (w >> 3 & 3) << 1 | (w >> 2 & 1) << 5;
    *t = (u32)(v->pc + (sd_wide)sx(d, 9));
    return 1;
}
PUT(rv_cb_put)
{
    sd_wide d = t - pc;
    return (w & 0xE383) | (d >> 8 & 1) << 12 | (d >> 3 & 3) << 10 | (d >> 6 & 3) << 5 | (d >> 1 & 3) << 3 |
           (d >> 5 & 1) << 2;
}
static const sd_form riscv[] = {
    {N("jal") 4, 2, SD_UNIT | SD_ANYWHERE, 0x7F, 0x6F, 0xFFFFF000, rv_jal_get, rv_jal_put},
    {N("auipc") 4, 2, SD_UNIT | SD_ANYWHERE, 0x7F, 0x17, 0xFFFFF000, rv_hi_get, rv_hi_put},
    {N("lui") 4, 2, SD_UNIT | SD_ANYWHERE, 0x7F, 0x37, 0xFFFFF000, rv_hi_get, rv_hi_put},
    {N("jalr") 4, 2, SD_UNIT | SD_ANYWHERE, 0x707F, 0x67, 0xFFF00000, rv_lo_get, rv_lo_put},
    {N("addi") 4, 2, SD_UNIT | SD_ANYWHERE, 0x707F, 0x13, 0xFFF00000, rv_lo_get, rv_lo_put},
    {N("load") 4, 2, SD_UNIT | SD_ANYWHERE, 0x7F, 0x03, 0xFFF00000, rv_lo_get, rv_lo_put},
    {N("store") 4, 2, SD_UNIT | SD_ANYWHERE, 0x7F, 0x23, 0xFE000F80, rv_lo_get, rv_lo_put},
    {N("b<c>") 4, 2, SD_UNIT, 0x7F, 0x63, 0xFE000F80, rv_b_get, rv_b_put},
    {N("c.j") 2, 2, SD_UNIT, 0x6003, 0x2001, 0x1FFC, rv_cj_get, rv_cj_put},
    {N("c.b") 2, 2, SD_UNIT, 0xC003, 0xC001, 0x1C7C, rv_cb_get, rv_cb_put},
    {N("word") 4, 4, 0, 0, 0, 0xFFFFFFFF, abs32_get, abs32_put},
    {N("self") 4, 4, SD_DATA, 0, 0, 0xFFFFFFFF, self32_get4, self32_put},
};

/* A decoder for one device leaves the others' tables out: -DSD_ARCHS='1<<SD_THUMB' */
#ifndef SD_ARCHS
#define SD_ARCHS 0xFF
#endif
#define HAS(arch) (1 & (SD_ARCHS) >> (arch))
#ifdef SD_NARROW
_Static_assert(!((SD_ARCHS) & ~(1 << SD_THUMB | 1 << SD_XTENSA | 1 << SD_RISCV)), "only these count in 32 bits");
#endif
#define FORMS(arch, a) HAS(arch) ? a : 0, HAS(arch) ? sizeof a / sizeof *a : 0
const sd_machine sd_machines[SD_ARCHES] = {
    {0, 0, 1, 0, 0, 0, 0},
    {FORMS(SD_THUMB, thumb), 2, 0, 0, 0x10000000, 0x20100000},
    {FORMS(SD_ARM, arm), 4, 0, 0, 0, 0},
    {FORMS(SD_A64, a64), 4, 0, 0, 0, 0},
    {FORMS(SD_X86, x86), 1, 0, 0, 0, 0},
    {FORMS(SD_XTENSA, xtensa), 1, 0x40000000, 0x50000000, 0x3F000000, 0x40000000},
    {FORMS(SD_RISCV, riscv), 2, 0x40000000, 0x50000000, 0x3F000000, 0x40000000},
    {FORMS(SD_MIXED, mixed), 2, 0, 0, 0, 0},
};

u32 sd_unit_length(int arch, const u8 *p, sd_wide pc, u32 fwd)
{
    u32 n = 1;
    if (arch == SD_RISCV)
        return (*p & 3) == 3 ? 4 : 2;
    if (arch == SD_XTENSA) {
        u32 op = *p & 15;
        n = op >= 8 && op <= 13 ? 2 : 3;
        for (u32 k = 1; k < n; k++) /* ENTRY starts a function, 4-aligned: what came before was padding */
            if (!((pc + k) & 3) && fwd > k + 1 && p[k] == 0x36 && (p[k + 1] & 15) == 1)
                return k;
    }
    return n;
}
