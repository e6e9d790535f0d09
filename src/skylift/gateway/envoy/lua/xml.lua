-- XML, read into JSON's values and written from them. Attributes are `@name`, text beside elements `#text`;
-- elements that repeat are a list. Document types and entities of a document's own are refused.
local xml = {}
do
  local MAX_DEPTH = 64
  local marks = { ['&'] = '&amp;', ['<'] = '&lt;', ['>'] = '&gt;', ['"'] = '&quot;' }
  local known = { amp = '&', lt = '<', gt = '>', quot = '"', apos = "'" }

  local function escaped(s)
    return (s:gsub('[&<>"]', marks):gsub('[%z\1-\8\11\12\14-\31]', ''))
  end

  local function name_of(s)
    s = s:gsub('[^%w_.-]', '_')
    return s:find('^[%a_]') and s or '_' .. s
  end

  local function write(name, v, out)
    name = name_of(name)
    if json.is_array(v) then
      for i = 1, #v do write(name, v[i], out) end
      return
    end
    if v == json.null then
      out[#out + 1] = '<' .. name .. ' nil="true"/>'
      return
    end
    local attributes, inside = {}, {}
    if json.is_object(v) then
      for _, n in ipairs(v.names) do
        local field = v.values[n]
        local plain = type(field) ~= 'table' and tostring(field) or field.number
        if n:sub(1, 1) == '@' and plain then
          attributes[#attributes + 1] = ' ' .. name_of(n:sub(2)) .. '="' .. escaped(plain) .. '"'
        elseif n == '#text' and plain then
          inside[#inside + 1] = escaped(plain)
        else
          write(n, field, inside)
        end
      end
    elseif type(v) == 'table' then
      inside[1] = v.number
    else
      inside[1] = escaped(tostring(v))
    end
    out[#out + 1] = '<' .. name .. table.concat(attributes) .. '>' .. table.concat(inside) .. '</' .. name .. '>'
  end

  -- The document of a value; a list's elements are `item`s.
  function xml.encode(v, root)
    local out = {}
    if json.is_array(v) then
      write('item', v, out)
      root = name_of(root)
      return '<?xml version="1.0" encoding="UTF-8"?><' .. root .. '>' .. table.concat(out) .. '</' .. root .. '>'
    end
    write(root, v, out)
    return '<?xml version="1.0" encoding="UTF-8"?>' .. table.concat(out)
  end

  local function entity(e)
    local code = e:match('^#x(%x+)$')
    code = code and tonumber(code, 16) or tonumber(e:match('^#(%d+)$'))
    if code and code > 0 and code < 0x110000 then return json.utf8(code) end
    return known[e] or error('the entity &' .. e .. '; is not allowed', 0)
  end
  local function plain(s) return (s:gsub('&([^;]*);', entity)) end

  local function value_of(element)
    local text = plain(table.concat(element.text)):gsub('^%s+', ''):gsub('%s+$', '')
    if #element.node.names == 0 then return text end
    if text ~= '' then json.set(element.node, '#text', text) end
    return element.node
  end

  local function put(parent, name, v)
    local old = json.get(parent, name)
    if old == nil then
      json.set(parent, name, v)
    elseif json.is_array(old) then
      old[#old + 1] = v
    else
      local list = json.array()
      list[1], list[2] = old, v
      json.set(parent, name, list)
    end
  end

  -- The value of a document: an object with its root. Raises a sentence.
  function xml.decode(s)
    if s:find('<!DOCTYPE', 1, true) or s:find('<!ENTITY', 1, true) then
      error('document types are not allowed', 0)
    end
    s = s:gsub('<%?.-%?>', ''):gsub('<!%-%-.-%-%->', '')
    s = s:gsub('<!%[CDATA%[(.-)%]%]>', escaped)
    local top = { node = json.object(), text = {} }
    local stack, at = {}, 1
    while true do
      local from, to, close, name, rest, empty = s:find('<(/?)([%w_:.-]+)([^<>]-)(/?)>', at)
      if not from then break end
      top.text[#top.text + 1] = s:sub(at, from - 1)
      at = to + 1
      if close == '' then
        if #stack > MAX_DEPTH then error('deeper than ' .. MAX_DEPTH, 0) end
        local element = { name = name, node = json.object(), text = {} }
        for n, _, v in rest:gmatch('([%w_:.-]+)%s*=%s*(["\'])(.-)%2') do json.set(element.node, '@' .. n, plain(v)) end
        stack[#stack + 1], top = top, element
      end
      if close == '/' or empty == '/' then
        if close == '/' and top.name ~= name then error('</' .. name .. '> closes nothing', 0) end
        local v, done = value_of(top), top.name
        top = table.remove(stack) or error('</' .. name .. '> closes nothing', 0)
        put(top.node, done, v)
      end
    end
    if #stack > 0 then error('<' .. top.name .. '> is not closed', 0) end
    if #top.node.names ~= 1 then error('a document has one root', 0) end
    if s:sub(at):find('[<>]') or table.concat(top.text):find('%S') then error('not a document', 0) end
    return top.node
  end
end
